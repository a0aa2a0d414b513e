/** Long texts are encoded in a worker thread. The sources are compiled for these tests: a thread runs JavaScript only. */
import { execFile } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import typescript from "typescript";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { EncodeWorker } from "../../ts/text/encode-worker-host.js";
import type { Tokenizer } from "../../ts/text/index.js";
import { MINI, miniTokenizer } from "./fixtures.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const compiled = join(root, "build", `text-worker-${process.pid}`);
let tokenizer: Tokenizer;
let load: () => Promise<Tokenizer | null>;

beforeAll(async () => {
  const sources = ["errors.ts", "runtime/compiled.ts", ...readdirSync(join(root, "ts", "text")).map((name) => join("text", name))];
  for (const source of sources) {
    const target = join(compiled, source.replace(/\.ts$/, ".js"));
    mkdirSync(dirname(target), { recursive: true });
    const { module, target: language } = { module: typescript.ModuleKind.ESNext, target: typescript.ScriptTarget.ES2022 };
    writeFileSync(
      target,
      typescript.transpileModule(readFileSync(join(root, "ts", source), "utf8"), { compilerOptions: { module, target: language } })
        .outputText,
    );
  }
  const url = pathToFileURL(join(compiled, "text", "index.js")).href;
  const { Tokenizer: Compiled } = (await import(/* @vite-ignore */ url)) as { Tokenizer: typeof Tokenizer };
  load = () => Compiled.load(MINI);
  tokenizer = (await load()) as Tokenizer;
});
afterAll(() => {
  tokenizer?.close();
  rmSync(compiled, { recursive: true, force: true });
});

describe("the worker thread", { timeout: 30_000 }, () => {
  it("gives the same ids, with special tokens parsed or not", async () => {
    const text = `${"Once upon a time, a fox. ".repeat(4000)}</longcat_s>${"z".repeat(50_000)}`;
    for (const parseSpecial of [true, false]) {
      expect(await tokenizer.encodeAsync(text, { parseSpecial })).toEqual({ ids: tokenizer.encode(text, { parseSpecial }) });
    }
  });

  it("lets the event loop go on: timers fire while a text of a second's work is encoded", async () => {
    await tokenizer.encodeAsync("warm ".repeat(10_000));
    const text = "1".repeat(400_000);
    let ticks = 0;
    const timer = setInterval(() => ticks++, 5);
    const start = performance.now();
    await tokenizer.encodeAsync(text);
    const took = performance.now() - start;
    clearInterval(timer);
    expect(took).toBeGreaterThan(50);
    // Encoding on this thread would leave no tick at all.
    expect(ticks).toBeGreaterThan(took / 5 / 10);
  });

  it("answers several texts at once, each with its own ids", async () => {
    const texts = ["a", "b", "c"].map((unit) => `${unit} `.repeat(15_000));
    const results = await Promise.all(texts.map((text) => tokenizer.encodeAsync(text)));
    expect(results).toEqual(texts.map((text) => ({ ids: tokenizer.encode(text) })));
  });

  it("rejects the texts that wait when it is closed, and long ones afterwards; short ones need no thread", async () => {
    const closing = (await load()) as Tokenizer;
    const text = "word ".repeat(10_000);
    const pending = [closing.encodeAsync(text), closing.encodeAsync(text)];
    closing.close();
    for (const one of [...pending, closing.encodeAsync(text)]) {
      await expect(one).rejects.toMatchObject({ code: "DISPOSED", message: "the tokenizer was closed before the text was encoded" });
    }
    expect(await closing.encodeAsync("word")).toEqual({ ids: closing.encode("word") });
  });

  it("does not keep an idle process alive, and does keep a waiting one", async () => {
    const script = `
      const { Tokenizer } = await import(process.argv[1]);
      const tokenizer = await Tokenizer.load(process.argv[2]);
      const { ids } = await tokenizer.encodeAsync("a".repeat(30000));
      console.log(ids.length);`;
    const index = pathToFileURL(join(compiled, "text", "index.js")).href;
    const start = performance.now();
    const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", script, index, MINI]);
    expect(stdout.trim()).toBe("30000");
    expect(performance.now() - start).toBeLessThan(20_000); // the thread's idle time is 30 s
  }, 30_000);
});

describe("without a thread", () => {
  it.each(["ERR_WORKER_INIT_FAILED", "EAGAIN"])("that the system refuses (%s), texts are left to their callers", async (code) => {
    let refusals = 0;
    const worker = new EncodeWorker(MINI, () => {
      refusals += 1;
      throw Object.assign(new Error("Worker initialization failure"), { code });
    });
    expect(await worker.encode(["Once"])).toBeNull();
    expect(await worker.encode(["upon"])).toBeNull(); // it is tried again
    expect(refusals).toBe(2);
    worker.close();
  });

  it("the same ids come from the calling thread", async () => {
    const here = await miniTokenizer();
    const text = "word ".repeat(10_000);
    expect(await here.encodeAsync(text)).toEqual({ ids: here.encode(text) });
    here.close();
  });
});
