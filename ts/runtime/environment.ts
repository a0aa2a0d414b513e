/**
 * The environment variables that this package reads, but for those of launchers (ts/parallel/launcher.ts).
 * @module
 */

/** Read when asked for, so that a program may set them before its first use of the package. */
export const environment = {
  /** LONGCAT_NATIVE: path of the addon to load, instead of looking for one. */
  get native(): string | undefined {
    return process.env["LONGCAT_NATIVE"] || undefined;
  },
  /** LONGCAT_ISA: `plain`, `avx2` or `avx512` instead of the processor's best. */
  get isa(): string | undefined {
    return process.env["LONGCAT_ISA"] || undefined;
  },
  /** LONGCAT_NCCL: path of NCCL's library, instead of the names under which the system's linker knows it. */
  get nccl(): string | undefined {
    return process.env["LONGCAT_NCCL"] || undefined;
  },
};
