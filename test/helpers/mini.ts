/**
 * Engines of the bundled checkpoint in tests, what is asked of them, and what is expected.
 */
import { expect } from "vitest";
import { Engine } from "../../ts/engine/engine.js";
import type { EngineOptions } from "../../ts/engine/options.js";
import type { LongcatErrorCode } from "../../ts/errors.js";
import { GREEDY, SUM } from "./questions.js";

export * from "./questions.js";

/** Matches an error of this code whose message holds `message`. */
export const refused = (code: LongcatErrorCode, message = "") =>
  expect.objectContaining({ name: "LongcatError", code, message: expect.stringContaining(message) });

/** Nothing runs or waits, and every cache block is back. */
export const idle = (engine: Engine) => expect(engine.stats).toMatchObject({ runningSequences: 0, waitingSequences: 0, blocksInUse: 0 });

/** The engine still answers. */
export const alive = async (engine: Engine) => expect((await engine.generate(SUM, GREEDY)).text).toBe("136");

/** Loads engines and closes them all at the end: `const { open, closeAll } = engines(); afterAll(closeAll)`. */
export function engines(defaults: EngineOptions = { device: "cpu", threads: 2, cacheBytes: 256 * 1024 * 1024 }) {
  const opened: Engine[] = [];
  return {
    open: async (dir?: string, options: EngineOptions = {}): Promise<Engine> => {
      const engine = await Engine.load(dir, { ...defaults, ...options });
      opened.push(engine);
      return engine;
    },
    closeAll: async (): Promise<void> => {
      for (const engine of opened.splice(0)) await engine.close();
    },
  };
}
