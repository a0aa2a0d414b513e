// Coverage-guided fuzzing of the config reader, with V8's own block coverage: inputs that reach new code join the corpus and are
// mutated further. The property: parseConfig returns a config whose derived numbers are finite, or throws a LongcatError with a
// short message; nothing else.
//
//   node fuzz/config-fuzz.mjs SECONDS [SEED]        a finding is written to build/fuzz/config-*.json, exit code 1
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { Session } from "node:inspector/promises";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import ts from "typescript";

const root = fileURLToPath(new URL("..", import.meta.url));
const seconds = Number(process.argv[2] ?? 60);
const seed = Number(process.argv[3] ?? 1);
const build = join(root, "build/fuzz/ts");
const SOURCES = ["errors.ts", "model/fields.ts", "model/rope.ts", "model/config.ts", "model/tensor-names.ts"];

/** Compiles the readers' few files, so that the fuzzer needs no other build. */
function compile() {
  mkdirSync(join(build, "model"), { recursive: true });
  writeFileSync(join(build, "package.json"), '{"type":"module"}');
  for (const source of SOURCES) {
    const { outputText } = ts.transpileModule(readFileSync(join(root, "ts", source), "utf8"), {
      compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ES2022 },
    });
    writeFileSync(join(build, source.replace(/ts$/, "js")), outputText);
  }
}
compile();
const load = (file) => import(pathToFileURL(join(build, file)).href);
const { parseConfig, ropeParameters } = await load("model/config.js");
const { modelTensors } = await load("model/tensor-names.js");
const { LongcatError } = await load("errors.js");

let state = BigInt(seed) * 0x9e3779b97f4a7c15n + 1n;
/** An integer in [0, n) (xorshift64). */
function below(n) {
  state ^= (state << 13n) & 0xffffffffffffffffn;
  state ^= state >> 7n;
  state ^= (state << 17n) & 0xffffffffffffffffn;
  return Number((state >> 11n) % BigInt(n));
}
const pick = (list) => list[below(list.length)];

const texts = SOURCES.slice(1).map((source) => readFileSync(join(root, "ts", source), "utf8")).join("\n");
const words = [...new Set([...texts.matchAll(/["'`\s]([A-Za-z][A-Za-z0-9_]{2,40})["'`\s]/g)].map((match) => match[1]))];
const numbers = [0, 1, 2, 3, 4, 5, 12, 15, 16, 64, 96, 128, 320, -1, -0, 0.5, 1.5, 1e-5, 1e-320, 1e7, 2 ** 31 - 1, 2 ** 31, 2 ** 53, 1e308, Infinity, -Infinity, NaN];

function anyValue(depth = 0) {
  switch (below(depth > 3 ? 6 : 9)) {
    case 0: case 1: return pick(numbers);
    case 2: return pick([true, false, null, undefined]);
    case 3: return pick(words);
    case 4: return String(pick(numbers));
    case 5: return pick(["", "\0", "\ud800", "x".repeat(below(2000)), "__proto__", "default", "yarn"]);
    case 6: return Array.from({ length: below(4) }, () => anyValue(depth + 1));
    case 7: return Object.fromEntries(Array.from({ length: below(5) }, () => [pick(words), anyValue(depth + 1)]));
    default: return { rope_type: "yarn", factor: pick(numbers), original_max_position_embeddings: pick(numbers), [pick(words)]: anyValue(depth + 1) };
  }
}

/** A changed copy. */
function mutate(value, depth = 0) {
  if (depth > 0 && below(3) === 0) return anyValue(depth);
  if (Array.isArray(value)) return below(2) ? [...value, anyValue(depth + 1)] : value.slice(0, below(value.length + 1));
  if (typeof value !== "object" || value === null) return anyValue(depth);
  const copy = { ...value };
  const keys = Object.keys(copy);
  for (let n = 1 + below(3); n > 0; n--) {
    const key = keys.length > 0 && below(3) ? pick(keys) : pick(words);
    if (below(4) === 0) delete copy[key];
    else if (below(4) === 0 && keys.length > 0) Object.defineProperty(copy, key, { value: copy[pick(keys)], enumerable: true, configurable: true, writable: true });
    else Object.defineProperty(copy, key, { value: mutate(copy[key], depth + 1), enumerable: true, configurable: true, writable: true });
  }
  return copy;
}

/** Why the property does not hold, or nothing. */
function violation(input) {
  let config;
  try {
    config = parseConfig(input, "config.json", (message) => {
      if (typeof message !== "string" || message.length > 500) throw new Error(`a warning of ${message?.length} characters`);
    });
  } catch (error) {
    if (!(error instanceof LongcatError)) return `threw ${error?.stack ?? error}`;
    if (error.code !== "CONFIG_INVALID" && error.code !== "CHECKPOINT_UNSUPPORTED") return `threw code ${error.code}`;
    return error.message.length < 300 ? undefined : `a message of ${error.message.length} characters: ${error.message}`;
  }
  const { invFreq, rotaryScale, softmaxScale } = config.qkRopeHeadDim > 4096 ? { invFreq: [1], rotaryScale: 1, softmaxScale: 1 } : ropeParameters(config);
  if (![...invFreq, rotaryScale, softmaxScale, config.qScale, config.kvScale, config.routedScalingFactor, config.rmsNormEps].every((n) => Number.isFinite(n) && n >= 0)) return "numbers that are not finite";
  let left = 200;
  for (const { name, shape } of modelTensors(config)) {
    if (!shape.every((n) => Number.isSafeInteger(n) && n > 0)) return `tensor ${name} of shape ${shape}`;
    if (--left === 0) break;
  }
  return undefined;
}

const session = new Session();
session.connect();
await session.post("Profiler.enable");
await session.post("Profiler.startPreciseCoverage", { callCount: false, detailed: true });
const seen = new Set();

/** How many blocks ran for the first time since the fuzzer began. */
async function newBlocks() {
  const { result } = await session.post("Profiler.takePreciseCoverage");
  let fresh = 0;
  for (const { url, functions } of result) {
    if (!url.includes("/build/fuzz/ts/")) continue;
    for (const { ranges } of functions) {
      for (const { startOffset, endOffset, count } of ranges) {
        const key = `${url}:${startOffset}:${endOffset}:${count > 0}`;
        if (!seen.has(key)) {
          seen.add(key);
          fresh++;
        }
      }
    }
  }
  return fresh;
}

function report(input, why) {
  const path = join(root, "build/fuzz", `config-${Date.now()}.json`);
  const text = JSON.stringify(input, (_, value) => (typeof value === "number" && !Number.isFinite(value) ? `number:${value}` : value), 1) ?? "undefined";
  writeFileSync(path, text);
  console.error(`config reader: ${why}\ninput: ${path}`);
  process.exitCode = 1;
}

const readJson = (path) => JSON.parse(readFileSync(path, "utf8"));
const hostile = join(root, "test/fixtures/hostile");
const corpus = ["test/fixtures/tiny-a/config.json", "test/fixtures/tiny-lite-a/config.json", "models/mini/config.json"].map((path) => readJson(join(root, path)));
for (const name of readdirSync(hostile)) if (name.endsWith(".json")) corpus.push(readJson(join(hostile, name)));
corpus.push({ ...corpus[0], quantization_config: { quant_method: "fp8", fmt: "e4m3", weight_block_size: [128, 128] } }, { ...corpus[1], rope_scaling: undefined, rope_parameters: { ...corpus[1].rope_scaling, rope_theta: 1e4 } });
for (const input of corpus) {
  const why = violation(input);
  if (why) report(input, why);
}
await newBlocks();

const end = Date.now() + 1000 * seconds;
let runs = 0;
while (Date.now() < end && process.exitCode !== 1) {
  // Most of the time is spent in asking for coverage, so a small batch shares one question and joins the corpus as a whole.
  const batch = Array.from({ length: 16 }, () => mutate(below(4) ? pick(corpus) : pick(corpus.slice(-8))));
  for (const input of batch) {
    runs++;
    const why = violation(input);
    if (why) report(input, why);
  }
  if ((await newBlocks()) > 0) corpus.push(...batch);
}
console.log(`config reader: ${runs} inputs, ${seen.size} blocks seen, corpus ${corpus.length}${process.exitCode === 1 ? ", FAILED" : ", nothing found"}`);
session.disconnect();
