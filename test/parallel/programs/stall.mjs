// A rank whose main thread stands still, for so long or for good, while its heart beats: says "still" before and "awake" after, with whether it was lost.
//   node stall.mjs PORT TOKEN RANK RANKS SECONDS
import { Control } from "../../../dist/parallel/control.js";
import { startHeart } from "../../../dist/parallel/heart.js";

const [port, token, rank, ranks, seconds] = process.argv.slice(2);
const place = { address: "127.0.0.1", port: Number(port), token, rank: Number(rank), ranks: Number(ranks), connectMs: 10_000 };
const control = await Control.join(place);
await startHeart(place);
process.stdout.write("still\n");
Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(seconds) * 1000);
control.listen({ onLost: ({ message }) => process.stdout.write(`${message}\n`), onRound() {}, onClose() {}, onAllQuiet() {} });
await control.gather("awake", Uint8Array.of(1));
process.stdout.write("awake\n");
