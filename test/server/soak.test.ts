/** A short soak of `longcat serve`; scripts/soak.mjs says what it is, and runs for minutes when started by hand. */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const SCRIPT = fileURLToPath(new URL("../../scripts/soak.mjs", import.meta.url));

interface Report {
  problems: string[];
  counts: Record<string, number>;
  log?: string;
}

it("at twice its capacity, with hostile clients, the server lives, answers right and gives everything back", async () => {
  const child = spawn(process.execPath, [SCRIPT, "--duration", "15", "--json"], { stdio: ["ignore", "pipe", "inherit"] });
  let stdout = "";
  child.stdout.setEncoding("utf8").on("data", (piece: string) => {
    stdout += piece;
  });
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  const { problems, counts, log } = JSON.parse(stdout) as Report;
  expect(problems, log).toEqual([]);
  expect(code).toBe(0);
  // Each kind of client was there, the queue was full, and good requests got through.
  for (const kind of [
    "good: right",
    "good: refused",
    "vanish: stopped",
    "garbage: told",
    "huge: told",
    "slow: stopped",
    "impossible: told",
  ])
    expect(counts[kind], kind).toBeGreaterThan(0);
});
