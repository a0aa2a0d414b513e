// One rank of an exchange in a process of its own, over the raw addon (its path is in LONGCAT_ADDON). Arguments: rank, ranks, and what to do:
//   exchange   one exchange after another, as many as "steps" says; sends the last output
//   linger     joins, then waits for whatever comes
//   leave      begins an exchange that nobody joins, and has nothing else to do
// Sends {handle}, waits for {handles}; sends {out}, {ready}, or nothing more.
import { createRequire } from "node:module";
import { once } from "node:events";
import { sizes, tokensOfRank, weightsOf } from "./exchange-data.mjs";

const addon = createRequire(import.meta.url)(process.env.LONGCAT_ADDON);
const [rank, ranks] = process.argv.slice(2, 4).map(Number);
const task = process.argv[4];
const steps = Number(process.argv[5] ?? 1);
const { tokens: T, topK, experts, width, ffn } = sizes;
const local = experts / ranks;
const slots = Math.min(topK, local);
const entries = ranks * T * slots;

const device = addon.openDevice({ kind: "cpu", threads: 1 });
const [FLOAT, INT, INT64] = [0, 3, 4];
const tensor = (dtype, shape, data) => {
  const id = device.allocate(dtype, shape, "device");
  if (data) device.write(0, id, 0, data);
  return id;
};
const ops = addon.ops();
const enqueue = (name, tensors, scalars = {}) => {
  const op = ops.findIndex((info) => info.name === name);
  const ids = ops[op].tensors.map((argument) => tensors[argument.name] ?? -1);
  device.enqueue(0, op, Int32Array.from(ids), Float64Array.from(ops[op].scalars.map((scalar) => scalars[scalar])));
};

const own = device.window(Number(process.env.WINDOW_BYTES));
process.send({ handle: Buffer.from(own.handle).toString("hex") });
const [{ handles }] = await once(process, "message");
const windows = device.joinWindows(
  own.tensor,
  rank,
  handles.map((hex) => new Uint8Array(Buffer.from(hex, "hex"))),
);

const mine = tokensOfRank(rank);
const control = device.hostWords(16);
const shared = {
  h: tensor(FLOAT, [T, width], mine.h),
  rows: tensor(INT, [1], Int32Array.of(mine.rows)),
  windows,
  window: own.tensor,
  epoch: tensor(INT64, [1]),
  control,
  send_slot: tensor(INT, [T, ranks]),
  slot_plan: tensor(INT, [ranks * T, slots]),
};
const plan = {
  received: device.view(own.tensor, FLOAT, [ranks * T, width], 64 * 1024, 0),
  expert_start: tensor(INT, [local + 1]),
  plan_row: tensor(INT, [entries]),
};
const stackOf = (name) => {
  const parts = Array.from({ length: local }, (_, i) => tensor(FLOAT, name === "down" ? [width, ffn] : [ffn, width], weightsOf(name, rank * local + i)));
  return device.stack(parts);
};
const [gate, up, down] = ["gate", "up", "down"].map(stackOf);
const partial = tensor(FLOAT, [entries, width]);
const out = tensor(FLOAT, [T, width]);
const scalars = { rank, experts, window_tokens: T, fp8: 0 };
const routing = { ids: tensor(INT, [T, topK], mine.ids), weights: tensor(FLOAT, [T, topK], mine.weights) };

const step = () => {
  enqueue("ep_dispatch", { ...shared, ...routing, ...plan }, scalars);
  enqueue("moe_experts", { ...plan, h: plan.received, gate, up, down, hidden: tensor(FLOAT, [entries, ffn]), partial }, { expected: 0 });
  enqueue("ep_combine", { ...shared, partial, identity_weight: tensor(FLOAT, [T], mine.identity), out }, scalars);
};

if (task === "exchange") {
  for (let i = 0; i < steps; i++) step();
  const into = new Float32Array(mine.rows * width);
  await device.read(0, out, 0, into);
  process.send({ out: [...into] });
  process.disconnect();
} else if (task === "linger") {
  process.send({ ready: true });
} else {
  step();
  process.exitCode = 7;
  process.disconnect();
}
