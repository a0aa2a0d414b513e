/**
 * How a rank exchanges rows with the others: which way they can go, and what they go through.
 * @module
 */

import { LongcatError } from "../errors.js";
import type { Device, Tensor, Window } from "../runtime/device.js";
import { CONTROL_WORDS } from "../runtime/window.js";
import type { ModelConfig } from "./config.js";
import { type Exchange, isOneHost, type ModelParallel, ONE_RANK, type Sharding, windowBytes } from "./exchange.js";
import type { DeviceKind } from "./placement.js";
import type { ModelSizes } from "./sizing.js";

type Windows = Pick<Exchange, "windows" | "window" | "nccl">;

/** Bytes of a window that is only there to be reached. */
const TRIAL_BYTES = 256;

/**
 * Settles whether rows go through NCCL, which takes a window more, before memory is planned; all ranks do at once. GPUs of one host try whether they
 * reach one another's memory: what two processes may do depends on the bus, the driver, and on what the system lets them see.
 *
 * @param device the GPU; none is needed on the CPU, where there is one way
 * @throws LongcatError OPTION_INVALID for a way that these ranks do not have; COMM_ERROR naming a rank that cannot be reached, where there is no other
 */
export async function settleSharding(parallel: ModelParallel | undefined, device?: Device): Promise<Sharding> {
  if (!parallel) return ONE_RANK;
  const { ranks, dispatchDType, exchange } = parallel;
  const kind = device?.kind ?? "cpu";
  checkWay(kind, parallel);
  const sharding = { ranks, fp8Dispatch: dispatchDType === "fp8" };
  if (kind === "cpu") return { ...sharding, throughNccl: false };
  return { ...sharding, throughNccl: exchange === "nccl" || !isOneHost(parallel) || !(await reachAll(device!, parallel)) };
}

/**
 * Whether these ranks have the way that is asked for.
 *
 * @throws LongcatError OPTION_INVALID
 */
export function checkWay(kind: DeviceKind, parallel: Pick<ModelParallel, "exchange" | "ranks" | "ranksOnHost">): void {
  const { exchange = "auto", ranks, ranksOnHost } = parallel;
  if (exchange === "nccl" && kind === "cpu")
    throw new LongcatError("OPTION_INVALID", 'parallel.exchange: "nccl" needs GPUs, and this model runs on the CPU; give "auto" or "peer"');
  if (isOneHost(parallel) || (kind === "cuda" && exchange !== "peer")) return;
  const what = kind === "cpu" ? "ranks on the CPU" : 'ranks with parallel.exchange: "peer"';
  throw new LongcatError(
    "OPTION_INVALID",
    `${what} write into one another's memory and must be on one host: ${ranksOnHost} of ${ranks} are on this one, as LOCAL_WORLD_SIZE says, or what the launcher sets instead`,
  );
}

/**
 * Whether every rank reaches the memory of every other one. The windows of this trial are gone when it resolves, and nobody frees one that another
 * has open.
 *
 * @throws LongcatError COMM_ERROR where they do not, and windows are what is asked for
 */
async function reachAll(device: Device, parallel: ModelParallel): Promise<boolean> {
  const { own, windows, failure } = await meet(device, parallel, "windows to try", TRIAL_BYTES);
  windows?.release();
  await parallel.gather("windows let go", new Uint8Array());
  own?.tensor.release();
  if (failure && parallel.exchange === "peer") throw failure;
  return failure === undefined;
}

/** A window of this rank's, and a table of all; or why some rank does not reach them all, here and there. */
interface Met {
  own: Window | undefined;
  windows: Tensor | undefined;
  failure: LongcatError | undefined;
}

/** Opens a window on every rank, and theirs, under a name that this is done once under. */
async function meet(device: Device, { rank, gather }: ModelParallel, name: string, bytes: number): Promise<Met> {
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
  const handles = await gather(name, own?.handle ?? new Uint8Array());
  const windows = own && attempt(() => device.joinWindows(own, rank, handles));
  const reached = await gather(`${name}, reached`, Uint8Array.of(windows ? 1 : 0));
  const missing = reached.findIndex(([all]) => all !== 1);
  if (missing >= 0) failure ??= new LongcatError("COMM_ERROR", `rank ${missing} cannot open the windows of all others`);
  return { own, windows, failure };
}

/**
 * Opens this rank's exchange; all ranks do at once.
 *
 * @param sizes of a sharding that was settled
 * @throws LongcatError DEVICE_UNAVAILABLE where there is no NCCL; COMM_ERROR naming a rank that cannot be reached; OUT_OF_MEMORY
 */
export async function openExchange(
  device: Device,
  parallel: ModelParallel,
  config: Pick<ModelConfig, "hiddenSize" | "numExperts" | "topK">,
  sizes: Pick<ModelSizes, "sharding" | "maxBatchTokens" | "activationDType">,
): Promise<Exchange> {
  const { rank, ranks } = parallel;
  const { sharding, maxBatchTokens, activationDType } = sizes;
  const bytes = windowBytes(config, { ...sharding, throughNccl: false, tokens: maxBatchTokens, activationDType });
  const words = { epoch: device.tensor("int64", [1]), control: device.hostWords(CONTROL_WORDS) };
  return {
    ...{ rank, ranks, tokens: maxBatchTokens, fp8Dispatch: sharding.fp8Dispatch, ...words },
    ...(await (sharding.throughNccl ? joinNccl : openWindows)(device, parallel, bytes)),
  };
}

/** A window that the others write into, and theirs. */
async function openWindows(device: Device, parallel: ModelParallel, bytes: number): Promise<Windows> {
  const { own, windows, failure } = await meet(device, parallel, "windows", bytes);
  if (failure) throw failure;
  return { windows: windows!, window: own!.tensor };
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
