// What it costs ranks to agree on a forward pass: R processes that ask, one coordinator in a thread of another process, as in a group of one host.
// node bench/lockstep.mjs [ranks] [rounds]      after `npm run build`; nothing else should run.
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { Control } from "../dist/parallel/control.js";
import { CoordinatorThread } from "../dist/parallel/coordinator-thread.js";

const token = "bench";
const [role, ...numbers] = process.argv[2] === "rank" ? process.argv.slice(2) : ["leader", ...process.argv.slice(2)];
if (role === "rank") await rank(...numbers.map(Number));
else await lead(Number(numbers[0] ?? 2), Number(numbers[1] ?? 2000));

/** Starts the ranks, and prints what rank 0 has measured. */
async function lead(ranks, rounds) {
  const times = { connectMs: 10_000, loadMs: 10_000 };
  const coordinator = new CoordinatorThread({ ranks, address: "127.0.0.1", port: 0, token, ...times, starter: "", setup: {} }, {});
  const port = await coordinator.listens;
  const children = Array.from({ length: ranks }, (_, i) => fork(fileURLToPath(import.meta.url), ["rank", i, ranks, port, rounds].map(String)));
  const medians = await Promise.all(children.map((child) => new Promise((resolve) => child.once("message", resolve))));
  for (const child of children) child.kill();
  await coordinator.end();
  const us = (ms) => `${Math.round(ms * 1000)} µs`;
  console.log(`${ranks} ranks, ${rounds} rounds: median ${us(medians[0].median)}, 9 of 10 below ${us(medians[0].p90)}`);
}

/** Asks for one round after another, and tells how long each answer took. */
async function rank(rank, ranks, port, rounds) {
  const control = await Control.join({ address: "127.0.0.1", port, token, rank, ranks, connectMs: 10_000 });
  control.listen({ onRound() {}, onClose() {}, onAllQuiet() {}, onLost() {} });
  control.works(true);
  await control.gather("all are there", new Uint8Array(0));
  const times = [];
  for (let i = 0; i < rounds; i++) {
    const start = performance.now();
    await control.agree({ kind: "decode", sequences: 8, drafts: 1 });
    times.push(performance.now() - start);
  }
  control.works(false);
  times.sort((a, b) => a - b);
  process.send({ median: times[rounds >> 1], p90: times[Math.floor(rounds * 0.9)] });
}
