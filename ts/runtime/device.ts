/**
 * Devices, tensors, queues and graphs. Nothing runs where it is called: operations, writes and reads are enqueued, and run in order on
 * the device's own thread.
 * @module
 */

import { LongcatError } from "../errors.js";
import { loadAddon } from "./addon.js";
import type { NativeDevice, NativeGpu, NativeMappedFile, NativeTensorEntry } from "./binding.js";
import { Communicator } from "./communicator.js";
import { bytesOf, DTYPES, type DType, toFloats } from "./dtype.js";
import { environment } from "./environment.js";
import { chooseDevice } from "./gpus.js";
import { toLongcatError, translateErrors, translateRejections } from "./native-error.js";

/** How to open a device. */
export interface DeviceOptions {
  /** "auto" | "cpu" | "cuda" | "cuda:N"; default "cpu". */
  device?: string;
  /** Of the CPU's pool; "auto": as many as this process may use. */
  threads?: number | "auto";
  /** "sync": each operation is finished before its call returns. "poison": outputs and scratch are filled with 0xFF bytes first. */
  debug?: "off" | "sync" | "poison";
  /** CPU: an instruction set other than the processor's best, for tests. */
  isa?: "plain" | "avx2" | "avx512";
  /** This operation fails when it is run, for tests of error paths. */
  faultOn?: string;
  /** GPU: a kernel that traps runs in place of this operation, for tests of lost devices. */
  trapOn?: string;
  /** GPU: inputs of products with FP8 weights are quantised per 128 channels. */
  fp8Activations?: boolean;
  /** GPU: a row's bits do not depend on the others of its batch. Default true. */
  batchInvariant?: boolean;
}

/** Numbers of one type and shape on a device. Everything that is enqueued keeps the memory that it names. */
export class Tensor {
  readonly device: Device;
  /** The addon's number for it. */
  readonly id: number;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Elements from one index of the first dimension to the next. */
  readonly rowStride: number;

  /** Use Device's methods. */
  constructor(device: Device, id: number, dtype: DType, shape: readonly number[], rowStride?: number) {
    this.device = device;
    this.id = id;
    this.dtype = dtype;
    this.shape = shape;
    this.rowStride = rowStride ?? product(shape.slice(1));
  }

  /** Bytes of its elements, without what lies between the rows of a view of columns. */
  get bytes(): number {
    return product(this.shape) * bytesOf(this.dtype);
  }

  /** A tensor over bytes of this one. */
  view(dtype: DType, shape: readonly number[], byteOffset = 0, rowStride = 0): Tensor {
    return this.device.view(this, dtype, shape, byteOffset, rowStride);
  }

  /** Columns [begin, end) of a matrix, as a view. */
  columns(begin: number, end: number): Tensor {
    const [rows = 0, width = 0] = this.shape;
    if (this.shape.length !== 2 || !(begin >= 0 && begin < end && end <= width)) {
      throw new LongcatError("INTERNAL", `columns ${begin} to ${end} of a tensor of shape [${this.shape.join(", ")}]`);
    }
    return this.view(this.dtype, [rows, end - begin], begin * bytesOf(this.dtype), this.rowStride);
  }

  /** Forgets the tensor; its memory goes when nothing enqueued or recorded needs it. */
  release(): void {
    this.device.native.release(this.id);
  }
}

/** Memory of this rank into which the other ranks of an exchange write; see native/comm/window.h. */
export interface Window {
  /** Its bytes, zeroed. While it lives, others can open the window. */
  tensor: Tensor;
  /** What the other ranks need to open it. */
  handle: Uint8Array;
}

/** Words in host memory that this thread and the device see at once, not in queue order. */
export class HostWords {
  /** int32 [count], for operations. */
  readonly tensor: Tensor;

  /** Use Device.hostWords. */
  constructor(tensor: Tensor) {
    this.tensor = tensor;
  }

  /** Word `index` as it is now. */
  get(index: number): number {
    return translateErrors(() => this.tensor.device.native.getWord(this.tensor.id, index));
  }

  /** Sets word `index` now. */
  set(index: number, value: number): void {
    translateErrors(() => this.tensor.device.native.setWord(this.tensor.id, index, value));
  }
}

/** A place in a queue that another queue can wait for, until NUM_EVENTS more have been marked on the device. */
export class Event {
  readonly queue: Queue;
  /** The addon's number for it. */
  readonly number: number;

  constructor(queue: Queue, number: number) {
    this.queue = queue;
    this.number = number;
  }
}

/** Events of a device, used in turn. */
const NUM_EVENTS = 256;

/** Recorded operations; see Device.record. */
export class Graph {
  readonly device: Device;
  /** The addon's number for it. */
  readonly id: number;

  constructor(device: Device, id: number) {
    this.device = device;
    this.id = id;
  }

  /** Forgets the recording; a replay that is enqueued still runs. */
  release(): void {
    this.device.native.releaseGraph(this.id);
  }
}

/** The addon's times are on the system's monotonic clock, which performance.now() counts from a later origin: this one. */
const MONOTONIC_ORIGIN_MS = monotonicOrigin();

/** A pause between the looks at the two clocks makes the origin too early: of several, the latest is nearest. */
function monotonicOrigin(): number {
  return Math.max(...Array.from({ length: 16 }, () => Number(process.hrtime.bigint()) / 1e6 - performance.now()));
}

/**
 * An ordered list of work. On the CPU all queues of a device are one list, run by one pool, so waiting for another queue's event needs
 * nothing; on a GPU they are streams.
 *
 * Calls that enqueue throw INTERNAL when the device's ring is full: `await queue.room()` between steps.
 */
export class Queue {
  readonly device: Device;
  /** Its number, as messages name it. */
  readonly number: number;

  /** Use Device.queue. */
  constructor(device: Device, number: number) {
    this.device = device;
    this.number = number;
  }

  /** Enqueues operation `op`; ts/runtime/ops.ts has a function for each. */
  enqueue(op: number, tensors: Int32Array, scalars: Float64Array): void {
    let entered: boolean;
    try {
      entered = this.device.native.enqueue(this.number, op, tensors, scalars);
    } catch (error) {
      throw toLongcatError(error);
    }
    if (!entered) throw full();
  }

  /** Copies `data` now, and writes it to the tensor's bytes from `byteOffset` on when its turn comes. */
  write(tensor: Tensor, data: ArrayBufferView, byteOffset = 0): void {
    if (!translateErrors(() => this.device.native.write(this.number, tensor.id, byteOffset, data))) throw full();
  }

  /**
   * Fills `into` with the tensor's bytes from `byteOffset` on, as they are when its turn comes. Resolves with the time at which the device was
   * done, on performance.now()'s clock: this thread may come to it later.
   */
  async read(tensor: Tensor, into: ArrayBufferView, byteOffset = 0): Promise<number> {
    const ms = await translateRejections(async () => this.device.native.read(this.number, tensor.id, byteOffset, into));
    return ms - MONOTONIC_ORIGIN_MS;
  }

  /** All numbers of a dense tensor, whatever its type, as they are when its turn comes. FP8 codes are read without their scales. */
  async readFloats(tensor: Tensor): Promise<Float32Array> {
    const bytes = new Uint8Array(tensor.bytes);
    await this.read(tensor, bytes);
    return toFloats(bytes.buffer, tensor.dtype);
  }

  /** Sets every byte of the tensor. */
  fill(tensor: Tensor, byte: number): void {
    if (!translateErrors(() => this.device.native.fill(this.number, tensor.id, byte))) throw full();
  }

  /** Copies bytes of one tensor to another. */
  copy(from: Tensor, fromByte: number, to: Tensor, toByte: number, bytes: number): void {
    if (!translateErrors(() => this.device.native.copy(this.number, from.id, fromByte, to.id, toByte, bytes))) throw full();
  }

  /** Runs a recording again. */
  replay(graph: Graph): void {
    if (!translateErrors(() => this.device.native.replay(this.number, graph.id))) throw full();
  }

  /** Resolves when everything enqueued before is done; rejects with the first failure among it. */
  done(): Promise<void> {
    return translateRejections(async () => this.device.native.done(this.number));
  }

  /** Resolves when half of the ring is free, at once if it is. */
  room(): Promise<void> {
    return translateRejections(async () => this.device.native.room(this.number));
  }

  /** Whether `count` commands can be enqueued now. */
  hasRoom(count: number): boolean {
    return translateErrors(() => this.device.native.freeSlots()) >= count;
  }

  /** A mark for another queue to wait for. Nothing on the CPU, whose queues are one. */
  signal(): Event {
    const event = new Event(this, this.device.nextEvent());
    if (this.device.kind === "cuda" && !translateErrors(() => this.device.native.signal(this.number, event.number))) throw full();
    return event;
  }

  /** What is enqueued here afterwards runs after the event. */
  wait(event: Event): void {
    if (event.queue.device !== this.device) throw new LongcatError("INTERNAL", "an event of another device");
    if (this.device.kind === "cuda" && !translateErrors(() => this.device.native.wait(this.number, event.number))) throw full();
  }
}

/** A device: memory, a thread that owns it, queues. */
export class Device {
  /** The addon's object. */
  readonly native: NativeDevice;
  /** Commands that can be enqueued once `queue.room()` has resolved: half of the ring. */
  readonly roomCommands: number;
  readonly kind: "cpu" | "cuda";
  /** Which GPU it is; null: the CPU. */
  readonly gpu: NativeGpu | null;
  #queues = 0;
  #events = 0;
  #toldOfEagerGraphs = false;

  private constructor(native: NativeDevice, gpu: NativeGpu | null) {
    this.native = native;
    this.gpu = gpu;
    this.kind = native.kind;
    this.roomCommands = Math.floor(native.freeSlots() / 2);
  }

  /**
   * Opens a device.
   *
   * @throws LongcatError NATIVE_MISSING, DEVICE_UNAVAILABLE naming what was missing, OPTION_INVALID (threads)
   */
  static open(options: DeviceOptions = {}): Device {
    const { device = "cpu", threads = "auto", debug = "off", isa = environment.isa, faultOn } = options;
    const { trapOn, fp8Activations = false, batchInvariant = true } = options;
    if (threads !== "auto" && !(Number.isInteger(threads) && threads >= 1 && threads <= MAX_THREADS)) {
      throw new LongcatError("OPTION_INVALID", `threads: ${threads} is not accepted; give "auto" or an integer from 1 to ${MAX_THREADS}`);
    }
    const addon = loadAddon();
    const choice = chooseDevice(device);
    const shared = { poison: debug === "poison", sync: debug === "sync", faultOn };
    return translateErrors(
      () =>
        new Device(
          choice.kind === "cuda"
            ? addon.openDevice({ kind: "cuda", ordinal: choice.gpu.ordinal, threads: 1, ...shared, trapOn, fp8Activations, batchInvariant })
            : addon.openDevice({ kind: "cpu", threads: threads === "auto" ? addon.availableThreads() : threads, isa, ...shared }),
          choice.kind === "cuda" ? choice.gpu : null,
        ),
    );
  }

  /** Threads of the CPU's pool; 1 for a GPU. */
  get threads(): number {
    return this.native.threads;
  }

  /** "plain" | "avx2" | "avx512"; of a GPU its compute capability, such as "9.0". */
  get isa(): string {
    return this.gpu?.capability ?? this.native.isa;
  }

  /** Bytes of memory that its tensors and scratch hold; mapped files are not counted. */
  get allocatedBytes(): number {
    return this.native.allocatedBytes();
  }

  /** Bytes that could be allocated now. */
  get freeBytes(): number {
    return translateErrors(() => this.native.freeBytes());
  }

  /**
   * Takes `bytes` in one piece, from which later allocations are served. Nothing on the CPU.
   *
   * @throws LongcatError OUT_OF_MEMORY with what was asked and what is there
   */
  reserve(bytes: number): void {
    translateErrors(() => this.native.reserve(bytes));
  }

  /** The number of the next event: 0 … 255, in turn. */
  nextEvent(): number {
    this.#events = (this.#events + 1) % NUM_EVENTS;
    return this.#events;
  }

  /** Resolves when all that was enqueued or loaded before is done; rejects with the first failure among it. */
  done(): Promise<void> {
    return translateRejections(async () => this.native.done(0));
  }

  /** A new queue. */
  queue(): Queue {
    return new Queue(this, this.#queues++);
  }

  /**
   * Zeroed memory. Pages that nothing touches take none. On a GPU, "host" is pinned memory that it reads over the bus, not zeroed.
   *
   * @throws LongcatError OUT_OF_MEMORY with what was asked and what is there
   */
  tensor(dtype: DType, shape: readonly number[], place: "device" | "host" = "device"): Tensor {
    return new Tensor(
      this,
      translateErrors(() => this.native.allocate(DTYPES.indexOf(dtype), [...shape], place)),
      dtype,
      shape,
    );
  }

  /** A tensor over bytes of `base`. `rowStride` in elements; 0: dense. */
  view(base: Tensor, dtype: DType, shape: readonly number[], byteOffset = 0, rowStride = 0): Tensor {
    const id = translateErrors(() => this.native.view(base.id, DTYPES.indexOf(dtype), [...shape], byteOffset, rowStride));
    return new Tensor(this, id, dtype, shape, rowStride || undefined);
  }

  /**
   * A tensor of a mapped file's numbers. On the CPU nothing is copied; a GPU gets a copy, made in queue order, in its own memory or
   * ("host") in pinned memory that it reads over the bus.
   */
  fromFile(file: NativeMappedFile, entry: NativeTensorEntry, place: "device" | "host" = "device"): Tensor {
    return new Tensor(
      this,
      translateErrors(() => this.native.fromFile(file, entry, place)),
      DTYPES[entry.dtype]!,
      entry.shape,
    );
  }

  /** Tensors of one shape and dtype as one of a dimension more; nothing is copied. */
  stack(tensors: readonly Tensor[]): Tensor {
    const id = translateErrors(() => this.native.stack(tensors.map((tensor) => tensor.id)));
    return new Tensor(this, id, tensors[0]!.dtype, [tensors.length, ...tensors[0]!.shape]);
  }

  /**
   * A window of `bytes` (ts/runtime/window.ts counts them), zeroed. On the CPU it is shared memory without a name, which goes with the last
   * process that has it.
   *
   * @throws LongcatError OUT_OF_MEMORY; COMM_ERROR where the system or the device has no such memory
   */
  window(bytes: number): Window {
    const { tensor, handle } = translateErrors(() => this.native.window(bytes));
    return { tensor: new Tensor(this, tensor, "uint8", [bytes]), handle };
  }

  /**
   * The table of all ranks' windows, int64 [ranks], from their handles by rank (the own one is not opened). All are mapped while the table
   * or anything enqueued that names it lives.
   *
   * @throws LongcatError COMM_ERROR naming the rank whose window cannot be opened, and why
   */
  joinWindows(own: Window, rank: number, handles: readonly Uint8Array[]): Tensor {
    const id = translateErrors(() => this.native.joinWindows(own.tensor.id, rank, [...handles]));
    return new Tensor(this, id, "int64", [handles.length]);
  }

  /**
   * Zeroed words that this thread and the device see at once.
   *
   * @throws LongcatError OUT_OF_MEMORY
   */
  hostWords(count: number): HostWords {
    return new HostWords(
      new Tensor(
        this,
        translateErrors(() => this.native.hostWords(count)),
        "int32",
        [count],
      ),
    );
  }

  /**
   * What names a new communicator to all ranks that join it: one of them makes it and tells the others.
   *
   * @throws LongcatError DEVICE_UNAVAILABLE where NCCL is not found, with what was looked for; COMM_ERROR with NCCL's words
   */
  ncclUniqueId(): Uint8Array {
    return translateErrors(() => loadAddon().ncclUniqueId(environment.nccl));
  }

  /**
   * Joins the other ranks' GPUs through NCCL, once in a device's life; resolves when all have come. It sets no deadline: whoever starts the ranks
   * knows which of them is missing.
   *
   * @throws LongcatError DEVICE_UNAVAILABLE on the CPU, or where NCCL is not found, with what was looked for; COMM_ERROR with NCCL's words
   */
  async joinNccl(options: { rank: number; ranks: number; id: Uint8Array }): Promise<Communicator> {
    return new Communicator(await translateRejections(async () => this.native.joinNccl({ ...options, library: environment.nccl })));
  }

  /** A copy of a weight as float32 or bfloat16, made in queue order. FP8 takes its block scales. */
  convert(tensor: Tensor, scale: Tensor | undefined, dtype: DType): Tensor {
    return new Tensor(
      this,
      translateErrors(() => this.native.convert(tensor.id, scale?.id ?? -1, DTYPES.indexOf(dtype))),
      dtype,
      tensor.shape,
    );
  }

  /**
   * Runs what `enqueue` enqueues on any of this device's queues, and keeps the operations, fills and copies among it. Writes and reads are
   * no part of a recording. Resolves when all has run.
   */
  async record(enqueue: () => void): Promise<Graph> {
    translateErrors(() => this.native.beginRecord());
    let graph: Graph;
    try {
      enqueue();
    } catch (error) {
      this.native.releaseGraph(this.native.endRecord());
      throw error;
    }
    graph = new Graph(this, this.native.endRecord());
    try {
      await this.done();
    } catch (error) {
      graph.release();
      throw error;
    }
    this.#tellOfEagerGraphs();
    return graph;
  }

  /** Warns, once, of graphs that are none. */
  #tellOfEagerGraphs(): void {
    if (this.#toldOfEagerGraphs || this.native.eagerGraphs() === 0) return;
    this.#toldOfEagerGraphs = true;
    process.emitWarning(
      "a recorded step could not become a CUDA graph for want of GPU memory: its operations are launched one by one, which is slower; " +
        "leave more of the GPU's memory free, with a smaller cacheBytes for instance",
    );
  }

  /**
   * Finishes what is enqueued and gives everything back. May be called again. An exchange that waits for a rank which never comes has to be
   * given up first, by its `control`.
   */
  async close(): Promise<void> {
    await translateRejections(async () => this.native.close());
  }
}

/** Most threads of a device. */
export const MAX_THREADS = 1024;

function full(): LongcatError {
  return new LongcatError("INTERNAL", "the device's command ring is full: await queue.room() between layers or steps");
}

function product(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}
