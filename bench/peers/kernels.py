#!/usr/bin/env python3
"""Times of public kernels at LongCat-Flash's sizes, as `longcat bench kernels --shape flash` measures ours.

    python3 bench/peers/kernels.py [--only linear,experts,attention,router] [--tokens 1,4,16,64,256,1024] [--held 64,16,4]

Needs torch with CUDA, and no network. Prints one line of JSON:
  {"engine", "torch", "device", "results": [{"op", "peer", "shape", "rows", "dtype", "microseconds", "error"}]}

  linear     cuBLAS through torch.nn.functional.linear
  experts    the two grouped products of torch's grouped_mm with SwiGLU between them, on rows laid out by expert before the time begins: without routing,
             gather, weighted sum and zero experts, which ours have inside
  attention  prompts: scaled_dot_product_attention, cuDNN's and the flash backend (values padded from 128 to 192), causal, 64 heads
  router     softmax over 768 float32 logits, bias, top 12, gather, scale: plain torch in a graph; no plan of rows by expert

Random bfloat16 numbers. A time is the median over replays of a CUDA graph of several calls in a row, divided, each call over other copies of the
weights (400 MB at least, or all of them when they are more), as the `kernels` program does. `error` is the relative one against float32,
||out - reference|| / ||reference||, of a sample of rows.
"""

import argparse
import json
import math
import statistics
import sys

import torch
import torch.nn.functional as functional

COLD_BYTES = 400e6
HIDDEN, FFN, EXPERT, EXPERTS, ZERO, TOP = 6144, 12288, 2048, 512, 256, 12
LINEAR = [(6144, 1536), (6144, 576), (6144, 2112), (1536, 12288), (8192, 6144), (6144, 12288), (12288, 6144), (6144, 24576), (6144, 131072)]


def time_of(calls, repeat=1, replays=15):
    """Median µs of one of `calls` (functions without arguments), run in a row `repeat` times in one graph."""
    for call in calls[:2]:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeat):
            for call in calls:
                call()
    samples = []
    for replay in range(replays + 1):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        if replay:
            samples.append(begin.elapsed_time(end) * 1000 / (repeat * len(calls)))
    return statistics.median(samples)


def copies(bytes_of_one):
    return max(1, min(64, math.ceil(COLD_BYTES / bytes_of_one)))


def random(*shape, scale=1.0, dtype=torch.bfloat16):
    return (torch.randn(*shape, device="cuda", dtype=torch.float32) * scale).to(dtype) if math.prod(shape) < 1 << 28 else torch.randn(
        *shape, device="cuda", dtype=dtype
    ).mul_(scale)


def error_of(out, reference):
    return float((out.float() - reference).norm() / reference.norm())


def linear(tokens, report):
    for inputs, outputs in LINEAR:
        count = copies(2 * inputs * outputs)
        weights = [random(outputs, inputs, scale=inputs**-0.5) for _ in range(count)]
        for rows in tokens:
            x = random(rows, inputs)
            out = functional.linear(x[:4], weights[0][:256])
            calls = [lambda w=w: functional.linear(x, w) for w in weights]
            us = time_of(calls, repeat=max(1, 16 // count))
            report("linear", "cuBLAS", f"{inputs} to {outputs}", rows, "bf16", us, error_of(out, x[:4].float() @ weights[0][:256].float().T))
        del weights
        torch.cuda.empty_cache()


def experts(held, rows_each, report):
    """`held` experts, `held` · rows_each rows thrown uniformly."""
    bytes_of_one = 3 * 2 * HIDDEN * EXPERT * held
    try:
        up = torch.empty(held, HIDDEN, 2 * EXPERT, device="cuda", dtype=torch.bfloat16).normal_(std=HIDDEN**-0.5)
        down = torch.empty(held, EXPERT, HIDDEN, device="cuda", dtype=torch.bfloat16).normal_(std=EXPERT**-0.5)
    except torch.cuda.OutOfMemoryError:
        return
    sets = [(up, down)]
    while len(sets) < copies(bytes_of_one):
        sets.append((up.clone(), down.clone()))
    for each in rows_each:
        total = held * each
        counts = torch.bincount(torch.randint(0, held, (total,)), minlength=held)
        ends = torch.cumsum(counts, 0).to(device="cuda", dtype=torch.int32)
        x = random(total, HIDDEN)

        def both(up, down):
            gate, value = torch._grouped_mm(x, up, offs=ends).chunk(2, dim=-1)
            return torch._grouped_mm(functional.silu(gate) * value, down, offs=ends)

        out = both(up, down)
        first = int(torch.nonzero(counts)[0])
        n = int(counts[first])
        gate, value = (x[:n].float() @ up[first].float()).chunk(2, dim=-1)
        wanted = (functional.silu(gate) * value) @ down[first].float()
        us = time_of([lambda u=u, d=d: both(u, d) for u, d in sets], repeat=max(1, 4 // len(sets)))
        report("moe_experts", "torch grouped_mm", f"{held} held, {int((counts > 0).sum())} with rows", each, "bf16", us, error_of(out[:n], wanted))
    del sets, up, down
    torch.cuda.empty_cache()


def attention(lengths, report):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    for length in lengths:
        q, k = (random(1, 64, length, 192) for _ in range(2))
        v = random(1, 64, length, 128)
        rows = torch.tensor([0, length // 3, length - 1], device="cuda")
        scores = (q[0, 0, rows].float() @ k[0, 0].float().T) / math.sqrt(192)
        scores.masked_fill_(torch.arange(length, device="cuda")[None] > rows[:, None], -math.inf)
        wanted = torch.softmax(scores, -1) @ v[0, 0].float()
        padded = functional.pad(v, (0, 64))
        for name, backend, values in (("cuDNN", SDPBackend.CUDNN_ATTENTION, v), ("FlashAttention-2", SDPBackend.FLASH_ATTENTION, padded)):
            try:
                with sdpa_kernel(backend):
                    call = lambda values=values: functional.scaled_dot_product_attention(q, k, values, is_causal=True)
                    out = call()[0, 0, rows, :128]
                    us = time_of([call], repeat=2, replays=8)
                report("mla_prefill", f"SDPA, {name}", f"prompt of {length}", length, "bf16", us, error_of(out, wanted))
            except RuntimeError as error:
                print(f"attention, {name}, {length}: {str(error).splitlines()[0]}", file=sys.stderr)


def router(tokens, report):
    weights = [random(EXPERTS + ZERO, HIDDEN, scale=HIDDEN**-0.5, dtype=torch.float32) for _ in range(24)]
    bias = torch.zeros(EXPERTS + ZERO, device="cuda")
    for rows in tokens:
        x = random(rows, HIDDEN)

        def route(weight):
            scores = torch.softmax(functional.linear(x.float(), weight), -1)
            ids = torch.topk(scores + bias, TOP, dim=-1).indices
            return ids, scores.gather(1, ids) * 6.0

        us = time_of([lambda w=w: route(w) for w in weights])
        logits = functional.linear(x[:4].float(), weights[0])
        report("moe_route", "torch, no plan", "6144 to 768, top 12", rows, "f32", us, error_of(logits, (x[:4].double() @ weights[0].double().T).float()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="linear,experts,attention,router")
    parser.add_argument("--tokens", default="1,4,16,64,256,1024")
    parser.add_argument("--held", default="64,16,4")
    parser.add_argument("--rows-each", default="1,4,8,16,32,64,128,512")
    parser.add_argument("--prompts", default="2048,8192,32768")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("torch sees no GPU")
    numbers = lambda words: [int(word) for word in words.split(",")]
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    results = []

    def report(op, peer, shape, rows, dtype, us, error):
        results.append({"op": op, "peer": peer, "shape": shape, "rows": rows, "dtype": dtype, "microseconds": round(us, 2), "error": float(f"{error:.2g}")})
        print(f"{op:12} {peer:20} {shape:26} {rows:6} {dtype:5} {us:10.1f} µs   error {error:.2g}", file=sys.stderr)

    chosen = arguments.only.split(",")
    if "linear" in chosen:
        linear(numbers(arguments.tokens), report)
    if "experts" in chosen:
        for held in numbers(arguments.held):
            experts(held, numbers(arguments.rows_each), report)
    if "attention" in chosen:
        attention(numbers(arguments.prompts), report)
    if "router" in chosen:
        router(numbers(arguments.tokens), report)
    document = {"engine": "public kernels", "torch": torch.__version__, "device": torch.cuda.get_device_name(), "results": results}
    print(json.dumps(document))


if __name__ == "__main__":
    main()
