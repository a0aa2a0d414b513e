/**
 * Makes what a rank exchanges rows through, and connects it with the others'.
 * @module
 */

import { LongcatError } from "../errors.js";
import type { Device } from "../runtime/device.js";
import { CONTROL_WORDS } from "../runtime/window.js";
import type { ModelConfig } from "./config.js";
import { type Exchange, isOneHost, type ModelParallel, windowBytes } from "./exchange.js";
import type { ModelSizes } from "./sizing.js";

type Windows = Pick<Exchange, "windows" | "window" | "nccl">;

/**
 * Opens this rank's exchange; all ranks do at once.
 *
 * @throws LongcatError OPTION_INVALID for a way that these ranks do not have; DEVICE_UNAVAILABLE where there is no NCCL; COMM_ERROR naming a rank that
 * cannot be reached; OUT_OF_MEMORY
 */
export async function openExchange(
  device: Device,
  parallel: ModelParallel,
  config: Pick<ModelConfig, "hiddenSize" | "numExperts" | "topK">,
  sizes: Pick<ModelSizes, "sharding" | "maxBatchTokens" | "activationDType">,
): Promise<Exchange> {
  const { rank, ranks } = parallel;
  const { sharding, maxBatchTokens, activationDType } = sizes;
  checkWay(device, parallel);
  const bytes = windowBytes(config, { ...sharding, throughNccl: false, tokens: maxBatchTokens, activationDType });
  const words = { epoch: device.tensor("int64", [1]), control: device.hostWords(CONTROL_WORDS) };
  const windows = sharding.throughNccl ? undefined : await openWindows(device, parallel, bytes);
  return {
    ...{ rank, ranks, tokens: maxBatchTokens, fp8Dispatch: sharding.fp8Dispatch, ...words },
    ...(windows ?? (await joinNccl(device, parallel, bytes))),
  };
}

function checkWay({ kind }: Device, parallel: ModelParallel): void {
  const { exchange = "auto", ranks, ranksOnHost } = parallel;
  if (exchange === "nccl" && kind === "cpu")
    throw new LongcatError("OPTION_INVALID", 'parallel.exchange: "nccl" needs GPUs, and this model runs on the CPU; give "auto" or "peer"');
  if (isOneHost(parallel) || (kind === "cuda" && exchange !== "peer")) return;
  const what = kind === "cpu" ? "ranks on the CPU" : 'ranks with parallel.exchange: "peer"';
  throw new LongcatError(
    "OPTION_INVALID",
    `${what} write into one another's memory and must be on one host: ${ranksOnHost} of ${ranks} are on this one`,
  );
}

/**
 * A window that the others write into, and theirs. Undefined: some rank cannot reach another one so, and GPUs have another way.
 *
 * @throws LongcatError COMM_ERROR where they have none
 */
async function openWindows(
  device: Device,
  { rank, exchange = "auto", gather }: ModelParallel,
  bytes: number,
): Promise<Windows | undefined> {
  let failure: LongcatError | undefined;
  const attempt = <T>(open: () => T): T | undefined => {
    try {
      return open();
    } catch (error) {
      if (!(error instanceof LongcatError) || error.code !== "COMM_ERROR") throw error;
      failure = error;
      return undefined;
    }
  };
  const own = attempt(() => device.window(bytes));
  const handles = await gather("windows", own?.handle ?? new Uint8Array());
  const windows = own && attempt(() => device.joinWindows(own, rank, handles));
  const reached = (await gather("reached", Uint8Array.of(windows ? 1 : 0))).map(([all]) => all === 1);
  if (windows && !reached.includes(false)) return { windows, window: own.tensor };
  if (device.kind === "cpu" || exchange === "peer")
    throw failure ?? new LongcatError("COMM_ERROR", `rank ${reached.indexOf(false)} cannot open the windows of all others`);
  windows?.release();
  own?.tensor.release();
  return undefined;
}

/** Two windows, which NCCL carries rows between. Joining comes last: behind it nothing can fail that would leave the communicator open. */
async function joinNccl(device: Device, { rank, ranks, gather }: ModelParallel, bytes: number): Promise<Windows> {
  const windows = device.tensor("int64", [ranks]);
  const [window, outbox] = [device.tensor("uint8", [bytes]), device.tensor("uint8", [bytes])];
  const counts = device.hostWords(2 * ranks);
  const [id] = await gather("nccl", rank === 0 ? device.ncclUniqueId() : new Uint8Array());
  const communicator = await device.joinNccl({ rank, ranks, id: id! });
  return { windows, window, nccl: { communicator, outbox, counts } };
}
