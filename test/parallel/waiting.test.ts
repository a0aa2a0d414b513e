/** A process that does nothing but wait for an answer: whichever rank is lost, it goes on, and learns of it. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { childrenOf, gone } from "../helpers/processes.js";

const PROGRAM = fileURLToPath(new URL("programs/waits.mjs", import.meta.url));

// A single call goes to the first rank.
it.each([
  ["generate", 0],
  ["generate", 1],
  ["stream", 0],
  ["stream", 1],
] as const)("%s fails when rank %i is killed, and the program lives on", async (call, rank) => {
  const program = spawn(process.execPath, [PROGRAM, call], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((resolve) => program.once("exit", resolve));
  const told: unknown[] = [];
  let ranks: number[] = [];
  for await (const line of createInterface(program.stdout)) {
    told.push(JSON.parse(line));
    if (told.length > 1) continue;
    ranks = childrenOf(program.pid!).sort((a, b) => a - b); // in the order in which they were started
    process.kill(ranks[rank]!, "SIGKILL");
  }
  const message = expect.stringMatching(`^rank ${rank} of 2 is lost: its process ${ranks[rank]} was ended by SIGKILL$`);
  expect(told).toEqual(["begun", { code: "COMM_ERROR", message }, "closed"]);
  expect(await ended).toBe(0);
  await gone(ranks);
});
