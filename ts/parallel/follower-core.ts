/**
 * An engine in a process whose ranks are led by another process: it answers no calls, and ends when the leader does.
 * @module
 */

import type { EngineCore } from "../engine/core.js";
import type { EngineStats } from "../engine/types.js";
import { LongcatError } from "../errors.js";
import type { GroupMember } from "./group.js";

export class FollowerCore implements EngineCore {
  readonly limits: EngineCore["limits"];
  readonly ended: Promise<LongcatError | undefined>;
  readonly failure: LongcatError;

  constructor({ rank, ranks, info, ended }: GroupMember) {
    this.limits = { vocabulary: info.vocabularySize, contextLength: info.contextLength };
    this.ended = ended;
    this.failure = new LongcatError(
      "OPTION_INVALID",
      `this process has rank ${rank} of ${ranks} and takes no calls: they go to the process of rank 0; await engine.ended here`,
    );
  }

  get stats(): EngineStats {
    throw this.failure;
  }

  prepare(): never {
    throw this.failure;
  }

  score(): never {
    throw this.failure;
  }

  async close(): Promise<void> {}
}
