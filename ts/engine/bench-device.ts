/**
 * What the benches share: clocks, medians, and what the device's memory can do.
 * @module
 */

import { LongcatError } from "../errors.js";
import { measure } from "../runtime/addon.js";
import { Device, type Graph, type Queue } from "../runtime/device.js";
import { chooseDevice } from "../runtime/gpus.js";

/** The least time of some work: what memory and arithmetic do, measured in the same run. */
export interface Ceilings {
  /** CPU: reading a buffer of the work's size. GPU: bytes read and written by a copy within its memory. */
  bytesPerSecond: number;
  /** CPU: multiply-adds in registers. A GPU's is not measured here (`longcat bench kernels` does): null. */
  flopsPerSecond: number | null;
}

/** A GPU copies so many bytes from one place of its memory to another, so many times. */
const COPIED_BYTES = 1024 ** 3;
const COPIES = 20;
const COPY_RUNS = 5;

/** Bytes a second that a GPU moves: a copy of 1 GiB reads and writes it. On a device of its own, closed again. */
async function copyBandwidth(name: string): Promise<number> {
  const device = Device.open({ device: name });
  try {
    device.reserve(2 * COPIED_BYTES);
    const [from, to] = [device.tensor("uint8", [COPIED_BYTES]), device.tensor("uint8", [COPIED_BYTES])];
    const queue = device.queue();
    const seconds: number[] = [];
    for (let run = 0; run <= COPY_RUNS; run++) {
      await queue.done();
      const start = performance.now();
      for (let i = 0; i < COPIES; i++) queue.copy(from, 0, to, 0, COPIED_BYTES);
      await queue.done();
      if (run > 0) seconds.push((performance.now() - start) / 1000);
    }
    return (2 * COPIED_BYTES * COPIES) / median(seconds);
  } finally {
    await device.close();
  }
}

/** What a device can do; asks a GPU once, before a model is there. */
export class CeilingMeter {
  readonly #copyBytesPerSecond: number | null;

  private constructor(copyBytesPerSecond: number | null) {
    this.#copyBytesPerSecond = copyBytesPerSecond;
  }

  /** @throws LongcatError DEVICE_UNAVAILABLE; OUT_OF_MEMORY where a GPU has not 2 GiB left */
  static async of(device: string): Promise<CeilingMeter> {
    const choice = chooseDevice(device);
    return new CeilingMeter(choice.kind === "cpu" ? null : await copyBandwidth(`cuda:${choice.gpu.ordinal}`));
  }

  /** For work that touches so many bytes. */
  ceilings(threads: number, bytes: number): Ceilings {
    if (this.#copyBytesPerSecond !== null) return { bytesPerSecond: this.#copyBytesPerSecond, flopsPerSecond: null };
    const { readBytesPerSecond, flopsPerSecond } = measure(threads, Math.max(1, Math.ceil(bytes)));
    return { bytesPerSecond: readBytesPerSecond, flopsPerSecond };
  }
}

/** Seconds that the work takes at least. */
export function floorSeconds({ bytes, flops }: { bytes: number; flops: number }, { bytesPerSecond, flopsPerSecond }: Ceilings): number {
  return Math.max(bytes / bytesPerSecond, flopsPerSecond === null ? 0 : flops / flopsPerSecond);
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}

/**
 * Replays that are timed together: for so long at least, on a GPU so many at least, so that the clock's own time does not count; but none
 * beyond the first is needed once it takes long.
 */
const SAMPLE_SECONDS = 0.02;
const LEAST_GPU_REPLAYS = 20;
const LONG_SECONDS = 0.2;
const MOST_REPLAYS = 500;

function replaysFor(kind: Device["kind"], seconds: number): number {
  const wanted = Math.max(Math.ceil(SAMPLE_SECONDS / seconds), kind === "cuda" ? LEAST_GPU_REPLAYS : 1);
  return Math.max(1, Math.min(MOST_REPLAYS, wanted, Math.ceil(LONG_SECONDS / seconds)));
}

/** How many replays are timed together: for ranks, which must all replay as often, a number that they agree on. */
export type AgreeOnReplays = (wanted: number) => Promise<number>;

/**
 * Seconds of one replay: replays enqueued back to back until `done`, the median of `samples` such rows. The first replays do not count.
 *
 * @param agree what several ranks whose replays exchange rows need
 */
export async function timeReplays(
  queue: Queue,
  graph: Graph,
  samples: number,
  signal?: AbortSignal,
  agree: AgreeOnReplays = (wanted) => Promise.resolve(wanted),
): Promise<number> {
  const run = async (count: number): Promise<number> => {
    abortIfAsked(signal);
    await queue.done();
    const start = performance.now();
    for (let i = 0; i < count; i++) {
      if (!queue.hasRoom(2)) await queue.room();
      queue.replay(graph);
    }
    await queue.done();
    return (performance.now() - start) / 1000 / count;
  };
  const first = await run(1);
  const count = await agree(replaysFor(queue.device.kind, first));
  const seconds: number[] = [];
  for (let i = 0; i < samples; i++) seconds.push(await run(count));
  return median(seconds);
}

/** @throws LongcatError ABORTED once the signal has fired */
export function abortIfAsked(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw aborted(signal);
}

export function aborted({ reason }: AbortSignal): LongcatError {
  return new LongcatError("ABORTED", "the benchmark was aborted", { cause: reason });
}

/** Different token ids, the same in each run of the program: ordinary ones of any tokenizer, padding of none that is known. */
export class TokenSource {
  #state = 12345;

  take(count: number): number[] {
    return Array.from({ length: count }, () => {
      this.#state = (Math.imul(this.#state, 1103515245) + 12345) >>> 0;
      return FIRST_ID + ((this.#state >>> 8) % (LAST_ID - FIRST_ID));
    });
  }
}

const [FIRST_ID, LAST_ID] = [20, 1000];
