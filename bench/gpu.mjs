/**
 * Makes the tables of docs/performance.md: runs the benches, and HF transformers where they are installed, and prints Markdown.
 *
 *   node bench/gpu.mjs --help
 *
 * Needs the compiled package (npm run build). --layers: of the whole model with random weights (default: all).
 */
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { argumentsOf, flag, text } from "../scripts/arguments.mjs";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const USAGE =
  "node bench/gpu.mjs [--device cuda] [--batch 1,16,64] [--shape flash] [--dtype fp8] [--held 4,64] [--context 1024] [--prompt 1024]\n" +
  "       [--layers N] [--runs 5] [--tokens 128] [--python python3 | --no-peer] [--only mini,layer,decode,prefill]";
const { values } = argumentsOf(USAGE, {
  device: text("cuda"),
  batch: text("1,16,64"),
  shape: text("flash"),
  dtype: text("fp8"),
  held: text("4,64"),
  context: text("1024"),
  prompt: text("1024"),
  layers: { type: "string" },
  runs: text("5"),
  tokens: text("128"),
  python: text("python3"),
  "no-peer": flag,
  only: text("mini,layer,decode,prefill"),
});

const say = (line) => process.stderr.write(`${line}\n`);

/** Runs a program for the JSON document on its standard output. */
function documentOf(program, args) {
  const line = [program, ...args].join(" ");
  say(line);
  const { status, stdout, stderr, error } = spawnSync(program, args, { cwd: ROOT, encoding: "utf8", maxBuffer: 1 << 28 });
  if (error || status !== 0) throw new Error(`${line}: ${error?.message ?? stderr.trim().replace(/^error: /, "")}`);
  return JSON.parse(stdout);
}

const longcat = (...args) => documentOf(process.execPath, ["dist/cli/main.js", "bench", ...args, "--device", values.device, "--json"]);

/** The peer's document, or null where it cannot run. */
function peer() {
  if (values["no-peer"]) return null;
  const words = ["--device", values.device, "--batch", values.batch, "--tokens", values.tokens, "--runs", values.runs];
  try {
    return documentOf(values.python, [join("bench", "peers", "hf_decode.py"), ...words]);
  } catch (error) {
    say(`no comparison: ${error.message.split("\n").at(-1)}`);
    return null;
  }
}

function table(head, rows) {
  const lines = [head, head.map((_, i) => (i === 0 ? "---" : "---:")), ...rows];
  process.stdout.write(`${lines.map((cells) => `| ${cells.join(" | ")} |`).join("\n")}\n\n`);
}

const title = (line) => process.stdout.write(`${line}\n\n`);
const fixed = (value, digits) => value.toFixed(digits);
const percent = (share) => `${fixed(100 * share, 1)} %`;
const GIB = 1024 ** 3;

function mini() {
  const ours = longcat("decode", "--batch", values.batch, "--tokens", values.tokens, "--runs", values.runs);
  const theirs = peer();
  const versus = theirs ? `; HF transformers ${theirs.transformers}, torch ${theirs.torch}, ${theirs.dtype}, ${theirs.device}` : "";
  title(`mini: ${ours.activations} activations, ${ours.tokens} tokens after a prompt of ${ours.promptTokens}, median of ${ours.runs} runs${versus}`);
  table(
    ["batch", "tokens/s, Engine.generate", "tokens/s, runner", "µs a step, runner", ...(theirs ? ["tokens/s, HF transformers", "ours ÷ theirs"] : [])],
    ours.results.map((r) => {
      const other = theirs?.results.find(({ batch }) => batch === r.batch);
      const compared = other ? [fixed(other.tokensPerSecond, 0), fixed(r.tokensPerSecond / other.tokensPerSecond, 1)] : theirs ? ["", ""] : [];
      return [r.batch, fixed(r.tokensPerSecond, 0), fixed(r.runnerTokensPerSecond, 0), fixed(r.runnerStepUs, 1), ...compared];
    }),
  );
}

/** Shape, dtype and experts held, for those that the model has. */
const heldCounts = () => values.held.split(",");
const shaped = (held) => ["--shape", values.shape, "--dtype", values.dtype, "--experts-held", held];

function layer() {
  for (const held of heldCounts()) {
    const report = longcat("layer", ...shaped(held), "--batch", values.batch, "--context", values.context, "--prompt", values.prompt);
    const ceiling = fixed((report.results[0]?.bytesPerSecondCeiling ?? 0) / 1e9, 0);
    title(
      `A layer of ${report.shape}: ${report.dtype} matrices, ${report.activations} activations, ${report.expertsHeld} of ${report.experts} experts held, ` +
        `floor at ${ceiling} GB/s; µs (share of the floor)`,
    );
    const names = report.results.map((r) => (r.kind === "decode" ? `decode ${r.batch}, context ${r.context}` : `prompt ${r.rows}`));
    const cells = (of) => report.results.map(of);
    const cellOf = (us, share) => `${fixed(us, 1)} (${percent(share)})`;
    const whole = (us) => cells((r) => cellOf(us(r), r.floorUs / us(r)));
    table(
      ["operation", ...names],
      [
        ...(report.results[0]?.operations ?? []).map(({ op, part }, i) => [
          `${op.replace("mla_decode", "attention").replace("mla_prefill", "attention")}, ${part}`,
          ...cells((r) => cellOf(r.operations[i].us, r.operations[i].shareOfFloor)),
        ]),
        ["sum", ...whole((r) => r.sumUs)],
        ["whole, one branch after the other", ...whole((r) => r.serialUs)],
        ["whole, both branches at once", ...whole((r) => r.overlapUs)],
        ["different experts", ...cells((r) => r.distinctExperts)],
      ],
    );
  }
}

const layersFlag = () => (values.layers === undefined ? [] : ["--layers", values.layers]);

function decode() {
  const held = heldCounts()[0];
  // Each run reads its prompts anew, which takes longer than what is measured: two do.
  const plan = ["--batch", values.batch, "--context", values.context, "--tokens", values.tokens, "--runs", "2"];
  const report = longcat("decode", "--random-weights", ...shaped(held), ...layersFlag(), ...plan);
  title(
    `${report.shape}, ${report.layers} layers, ${report.dtype}, random weights, ${report.expertsHeld} experts held: ${fixed(report.memoryBytes / GIB, 1)} GiB, ` +
      `${report.tokens} tokens after a prompt of ${report.promptTokens}`,
  );
  table(
    ["batch", "tokens/s, Engine.generate", "tokens/s, runner", "ms a step, runner", "floor, ms", "share of the floor, runner"],
    report.results.map((r) => [
      r.batch,
      fixed(r.tokensPerSecond, 0),
      fixed(r.runnerTokensPerSecond, 0),
      fixed(r.runnerStepUs / 1000, 3),
      fixed(r.floorMs, 3),
      percent(r.runnerShareOfFloor),
    ]),
  );
}

function prefill() {
  const random = longcat("prefill", "--random-weights", ...shaped(heldCounts()[0]), ...layersFlag(), "--runs", values.runs);
  for (const report of [longcat("prefill", "--runs", values.runs), random]) {
    const what = report.shape === null ? "mini" : `${report.shape}, ${report.layers} layers, ${report.dtype}, ${report.expertsHeld} experts held`;
    title(`Prompts, ${what}; steps of at most ${report.maxBatchTokens} tokens`);
    table(
      ["tokens", "ms", "tokens/s", "TFLOP/s"],
      report.results.map((r) => [r.tokens, fixed(r.ms, 2), fixed(r.tokensPerSecond, 0), fixed(r.teraflops, 2)]),
    );
  }
}

const TABLES = { mini, layer, decode, prefill };
try {
  for (const name of values.only.split(",")) {
    if (!Object.hasOwn(TABLES, name)) throw new Error(`--only ${name}: there are ${Object.keys(TABLES).join(", ")}`);
    TABLES[name]();
  }
} catch (error) {
  say(`error: ${error.message}`);
  process.exitCode = 1;
}
