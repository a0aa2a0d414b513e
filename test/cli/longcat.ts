/** Runs the compiled command line as a child process, as users do. */
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

export const MAIN = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));
export const MINI = fileURLToPath(new URL("../../models/mini", import.meta.url));

export interface Finished {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  /** Text on standard input; absent: empty input. */
  input?: string | Uint8Array;
  cwd?: string;
  /** Variables beside those of this process. */
  env?: Record<string, string>;
  /** Called when it has been started. */
  onStart?: (child: ChildProcess) => void;
  /** Called with each piece of standard output, or of standard error. */
  onOutput?: (child: ChildProcess, stdout: string) => void;
  onErrorOutput?: (child: ChildProcess, stderr: string) => void;
}

/** Runs `longcat` to its end. */
export function longcat(args: readonly string[], options: RunOptions = {}): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [MAIN, ...args], { stdio: "pipe", cwd: options.cwd, env: { ...process.env, ...options.env } });
    options.onStart?.(child);
    let [stdout, stderr] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (piece: string) => {
      stdout += piece;
      options.onOutput?.(child, stdout);
    });
    child.stderr.setEncoding("utf8").on("data", (piece: string) => {
      stderr += piece;
      options.onErrorOutput?.(child, stderr);
    });
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
    child.stdin.on("error", () => undefined);
    child.stdin.end(options.input ?? "");
  });
}
