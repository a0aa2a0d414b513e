/**
 * An engine over ranks as its users have it: processes with a GPU each. The same bits as ever, under load too; and a rank that is lost under load ends
 * all calls with its name, and leaves neither processes nor memory behind.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, it } from "node:test";
import { Engine } from "../../ts/engine/engine.js";
import type { EngineOptions } from "../../ts/engine/options.js";
import type { Chunk, GenerateResult } from "../../ts/engine/types.js";
import type { LongcatError } from "../../ts/errors.js";
import { listDevices } from "../../ts/index.js";
import type { GenerateParams } from "../../ts/sampling/parameters.js";
import { comparable } from "../helpers/goldens.js";
import { childrenOf, gone } from "../helpers/processes.js";
import { bits, collect, GOLDENS, GREEDY, golden, ids, promptOf, SUM, THINK } from "../helpers/questions.js";
import { same, untilIdle } from "../helpers/serving.js";
import { describeOnGpus, whyNoNccl } from "./gpu.js";

const RANKS = 2;
const OPTIONS: EngineOptions = { device: "cuda", cacheBytes: 64 * 1024 * 1024, maxBatchTokens: 512, maxSequences: 16 };

/** How long calls go on beside one another, and how many. */
const STRESS_MS = 4000;
const CALLERS = 24;

/** Longest time from a loss to the end of all calls: five seconds of silence, and some for the judgement. */
const DEADLINE_MS = 9000;
/** So long a rank waits for another one where that is to be noticed before silence is. */
const TIMEOUT_MS = 2000;

/** A context's memory comes back when the driver has taken a dead process apart; what it hands out at a time may be missing. */
const MEMORY_BACK_MS = 5000;
const MEMORY_SLACK_BYTES = 64 * 1024 * 1024;

/** Loads mini on two ranks, whose rows go that way. All are closed when the suite ends. Call it in a suite. */
function engines(exchange: "auto" | "peer" | "nccl") {
  const opened: Engine[] = [];
  after(async () => {
    for (const engine of opened) await engine.close();
  });
  return async ({ parallel, ...options }: EngineOptions = {}): Promise<Engine> => {
    const engine = await Engine.load(undefined, { ...OPTIONS, ...options, parallel: { expert: RANKS, exchange, ...parallel } });
    opened.push(engine);
    return engine;
  };
}

const SOME = { ...GREEDY, maxTokens: 48, ignoreEos: true, logprobs: 2 };
const CALLS = [
  { prompt: "Once upon a time", params: SOME },
  { prompt: ids(200, 1), params: { ...SOME, maxTokens: 20 } },
  { prompt: ids(17, 2), params: { temperature: 1, seed: 7, maxTokens: 60, logprobs: 1 } },
  { prompt: "In a village by the lake,", params: { ...SOME, temperature: 0.8, seed: 8, presencePenalty: 0.5, repetitionPenalty: 1.2 } },
  { prompt: THINK, params: { ...GREEDY, logprobs: 2 } },
  { prompt: ids(600, 3), params: { ...SOME, maxTokens: 8 } },
] satisfies { prompt: unknown; params: GenerateParams }[];
type Answer = ReturnType<typeof answer>;
const answer = (result: GenerateResult) => ({ ...same(result), tokens: result.tokens });

/** What the chunks of an answer come to, and the same of the answer. */
const joined = (chunks: readonly Chunk[]) => ({
  text: chunks.map(({ text }) => text).join(""),
  tokens: chunks.flatMap(({ tokens }) => tokens),
  logprobs: bits(chunks.flatMap(({ logprobs }) => logprobs ?? [])),
});
const whole = ({ text, tokens, logprobs }: Answer) => ({ text, tokens, logprobs });

/** Each call's answer, one after another. */
async function answersAlone(engine: Engine): Promise<Answer[]> {
  const answers: Answer[] = [];
  for (const { prompt, params } of CALLS) answers.push(answer(await engine.generate(prompt, params)));
  return answers;
}

/** What the first engine of this file answers, whichever way its rows go: all others have to as well. */
let wanted: Answer[] | undefined;

/** Calls of all kinds until `endMs`, one behind the other; each is answered as it is alone, or up to where it is ended. Returns how many there were. */
async function call(engine: Engine, caller: number, endMs: number, answers: readonly Answer[], scores: readonly (number | null)[]) {
  let calls = 0;
  for (; performance.now() < endMs; calls++) {
    const i = (caller + calls) % CALLS.length;
    const { prompt, params } = CALLS[i]!;
    switch ((caller + 3 * calls) % 4) {
      case 0: {
        const chunks = await collect(engine.stream(prompt, params));
        assert.deepEqual(joined(chunks), whole(answers[i]!), `call ${i}, streamed`);
        break;
      }
      case 1: {
        const controller = new AbortController();
        const ended = await engine
          .generate(prompt, { ...params, signal: controller.signal }, () => controller.abort("enough"))
          .catch((error: LongcatError) => error);
        if (ended instanceof Error) assert.equal((ended as LongcatError).code, "ABORTED", ended.message);
        break;
      }
      case 2:
        assert.deepEqual((await engine.score(ids(90, 5))).logprobs, scores);
        break;
      default:
        assert.deepEqual(answer(await engine.generate(prompt, params)), answers[i], `call ${i}`);
    }
  }
  return calls;
}

const noNccl = await whyNoNccl();
for (const way of ["peer", "nccl"] as const)
  describeOnGpus(
    RANKS,
    `mini over ranks, exchange ${way},`,
    () => {
      const load = engines(way === "peer" ? "auto" : way);
      let shared: Promise<Engine> | undefined;
      const engine = () => (shared ??= load({ speculative: { drafts: 2 } }));

      it("says which way rows go: without a choice from GPU to GPU", async () => {
        const { info } = await engine();
        assert.deepEqual([info.device, info.parallel], ["cuda", { expert: RANKS, rank: 0, exchange: way }]);
      });

      it("gives the recorded tokens of all cases, all at once, up to the first near tie", async () => {
        const one = await engine();
        const results = await Promise.all(GOLDENS.map((c) => one.generate(promptOf(c), { ...GREEDY, maxTokens: c.greedy_ids.length })));
        for (const [i, { tokens }] of results.entries()) {
          const until = comparable(golden(i), 0.05);
          assert.deepEqual(tokens.slice(0, until), golden(i).greedy_ids.slice(0, until), `case ${i}`);
        }
        for (const { generatedTokens } of one.stats.ranks ?? []) assert.ok(generatedTokens > 0);
      });

      it("answers in the same bits again and again, with drafts or without, whichever way rows go", async () => {
        wanted ??= await answersAlone(await engine());
        for (const one of [await engine(), await load({ speculative: "off" })])
          for (let round = 0; round < 2; round++) assert.deepEqual(await answersAlone(one), wanted);
      });

      it("answers many callers at once as one, whether they stream, end their calls, or score", async () => {
        const one = await engine();
        wanted ??= await answersAlone(one);
        const { logprobs } = await one.score(ids(90, 5));
        const endMs = performance.now() + STRESS_MS;
        const callers = Array.from({ length: CALLERS }, (_, caller) => call(one, caller, endMs, wanted!, logprobs));
        const calls = (await Promise.all(callers)).reduce((sum, count) => sum + count, 0);
        console.log(`${way}: ${calls} calls in ${STRESS_MS / 1000} s`);
        await untilIdle(one);
      });
    },
    way === "nccl" && noNccl,
  );

/** The rank processes that this one has started, by rank. */
function rankProcesses(): number[] {
  const pids: number[] = [];
  for (const pid of childrenOf(process.pid)) {
    const [, program, place] = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
    if (program?.includes("rank-main")) pids[(JSON.parse(place!) as { rank: number }).rank] = pid;
  }
  return pids;
}

/** Free bytes of each GPU. */
async function freeBytes(): Promise<number[]> {
  return (await listDevices()).map(({ freeBytes }) => freeBytes);
}

/** Calls again and again until one fails. */
function callUntilFailure(engine: Engine, seed: number): { begun: Promise<void>; failure: Promise<LongcatError> } {
  let begin!: () => void;
  const begun = new Promise<void>((resolve) => {
    begin = resolve;
  });
  const failure = (async () => {
    try {
      for (;;) await engine.generate(ids(30, seed), { maxTokens: 200, ignoreEos: true }, begin);
    } catch (error) {
      return error as LongcatError;
    }
  })();
  return { begun, failure };
}

/** How rank 1 is lost, and what is said of it. */
interface Loss {
  how: string;
  signal: NodeJS.Signals;
  message: RegExp;
  options?: EngineOptions;
}

const KILLED: Loss = { how: "is killed", signal: "SIGKILL", message: /^rank 1 of 2 is lost: its process \d+ was ended by SIGKILL/ };
const SILENT: Loss = { how: "stands still", signal: "SIGSTOP", message: /^rank 1 of 2 is lost: nothing was heard of it for 5 s/ };
/** The other rank's kernels wait for it, and give up in the middle of a step. */
const AWAITED: Loss = {
  ...{ how: "is waited for within a step", signal: "SIGSTOP" },
  message: /^rank 1 of 2 is lost: others have waited for it for 2 s within a step/,
  options: { parallel: { expert: RANKS, timeoutMs: TIMEOUT_MS } },
};

for (const [way, losses] of [
  ["peer", [KILLED, SILENT, AWAITED]],
  ["nccl", [KILLED, AWAITED]],
] as const)
  describeOnGpus(
    RANKS,
    `a rank that is lost under load, exchange ${way},`,
    () => {
      const load = engines(way);
      let free: number[];
      before(async () => {
        free = await freeBytes();
      });
      /** What was loaded after the last loss is lost next. */
      let following: Engine | undefined;

      for (const [i, { how, signal, message, options }] of losses.entries())
        it(`because it ${how}: all calls end with its name, no process and no memory is kept, and the next load works`, async () => {
          const engine = following ?? (await load(options));
          following = undefined;
          const pids = rankProcesses();
          try {
            assert.equal(pids.length, RANKS);
            const calls = Array.from({ length: CALLERS }, (_, seed) => callUntilFailure(engine, seed));
            await Promise.all(calls.map(({ begun }) => begun));
            const startMs = performance.now();
            process.kill(pids[1]!, signal);
            for (const error of await Promise.all(calls.map(({ failure }) => failure))) {
              assert.equal(error.code, "COMM_ERROR", error.message);
              assert.match(error.message, message);
            }
            const ms = performance.now() - startMs;
            console.log(`${way}, a rank that ${how}: all calls have ended after ${ms.toFixed(0)} ms`);
            assert.ok(ms < DEADLINE_MS, `${ms} ms`);
            await assert.rejects(engine.ended, { code: "COMM_ERROR", message });
            await assert.rejects(engine.generate(SUM), { code: "COMM_ERROR", message });
          } finally {
            await engine.close();
          }
          await gone(pids);
          await memoryBack(free);
          following = await load(losses[i + 1]?.options);
          assert.equal((await following.generate(SUM, GREEDY)).text, "136");
        });
    },
    way === "nccl" && noNccl,
  );

/** Waits until each GPU has as many bytes free again. */
async function memoryBack(free: readonly number[]): Promise<void> {
  const deadline = performance.now() + MEMORY_BACK_MS;
  for (;;) {
    const missing = (await freeBytes()).map((now, gpu) => free[gpu]! - now);
    if (missing.every((bytes) => bytes <= MEMORY_SLACK_BYTES)) return;
    assert.ok(performance.now() < deadline, `${missing.join(", ")} bytes of the GPUs are not free again`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
