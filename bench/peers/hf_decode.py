#!/usr/bin/env python3
"""Decoding speed of a LongCat-Flash checkpoint in HF transformers, as `longcat bench decode` measures ours.

    python3 bench/peers/hf_decode.py [--model models/mini] [--device cuda] [--dtype bfloat16] [--batch 1,16,64]
                                     [--context 32] [--tokens 128] [--runs 5]

Needs torch and transformers (5.17 is known to work) and no network. Prints one line of JSON:
  {"engine", "transformers", "torch", "device", "dtype", "promptTokens", "tokens", "runs", "results": [{"batch", "tokensPerSecond", "stepMs"}]}

Prompts are random token ids, end tokens are ignored, the choice is greedy. A batch's time is that of all its tokens less that of its first
one (the prompt); tokens/s is the rest, all rows together, the median of the runs after one to warm up. Run it on the same machine, right
before or after `longcat bench decode --device cuda --batch 1,16,64`; `node bench/gpu.mjs` does both.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers.models.longcat_flash import modeling_longcat_flash as longcat_flash  # noqa: E402

FIRST_ID, LAST_ID = 20, 1000


def without_rows_for_zero_experts():
    """transformers 5 makes gate and up matrices for zero experts, too, which no checkpoint has: make as many as there are FFN experts."""
    experts = longcat_flash.LongcatFlashExperts
    original = experts.__init__

    def init(self, config, *args, **kwargs):
        original(self, config, *args, **kwargs)
        rows = config.n_routed_experts
        parameter = getattr(self, "gate_up_proj", None)
        if parameter is not None and parameter.shape[0] != rows:
            self.gate_up_proj = torch.nn.Parameter(torch.empty(rows, *parameter.shape[1:], dtype=parameter.dtype, device=parameter.device))

    experts.__init__ = init


def load(arguments):
    if hasattr(longcat_flash, "LongcatFlashExperts"):
        without_rows_for_zero_experts()
    model, report = longcat_flash.LongcatFlashForCausalLM.from_pretrained(
        arguments.model, dtype=getattr(torch, arguments.dtype), local_files_only=True, output_loading_info=True
    )
    report = report if isinstance(report, dict) else vars(report)
    for what in ("missing_keys", "mismatched_keys"):
        if report.get(what):
            sys.exit(f"{what}: {sorted(map(str, report[what]))[:5]} …: these weights are not the checkpoint's")
    model.generation_config.eos_token_id = None  # end tokens are ignored
    return model.to(arguments.device).eval()


def prompts(batch, length, device):
    generator = torch.Generator().manual_seed(12345)
    return torch.randint(FIRST_ID, LAST_ID, (batch, length), generator=generator).to(device)


def seconds(model, ids, tokens):
    """Of generating exactly `tokens` tokens in each row."""

    def synchronize():
        if ids.device.type == "cuda":
            torch.cuda.synchronize()

    synchronize()
    start = time.perf_counter()
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens, pad_token_id=0, use_cache=True)
    synchronize()
    elapsed = time.perf_counter() - start
    assert out.shape[1] == ids.shape[1] + tokens, f"{out.shape[1] - ids.shape[1]} tokens were generated, not {tokens}"
    return elapsed


def measure(model, batch, arguments):
    ids = prompts(batch, arguments.context, arguments.device)
    steps = arguments.tokens - 1
    times = [seconds(model, ids, arguments.tokens) - seconds(model, ids, 1) for _ in range(arguments.runs + 1)]
    step = statistics.median(times[1:]) / steps
    return {"batch": batch, "tokensPerSecond": batch / step, "stepMs": 1000 * step}


def main():
    parser = argparse.ArgumentParser(description="Decoding speed of a LongCat-Flash checkpoint in HF transformers.")
    parser.add_argument("--model", default=str(Path(__file__).resolve().parents[2] / "models" / "mini"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--batch", default="1,16,64")
    parser.add_argument("--context", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.tokens < 2:
        parser.error("--tokens: at least 2, since the first comes with the prompt")
    transformers.logging.set_verbosity_error()
    with torch.inference_mode():
        model = load(arguments)
        results = [measure(model, int(batch), arguments) for batch in arguments.batch.split(",")]
    name = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else arguments.device
    versions = {"engine": "HF transformers", "transformers": transformers.__version__, "torch": torch.__version__, "device": name}
    plan = {"dtype": arguments.dtype, "promptTokens": arguments.context, "tokens": arguments.tokens, "runs": arguments.runs}
    print(json.dumps({**versions, **plan, "results": results}))


if __name__ == "__main__":
    main()
