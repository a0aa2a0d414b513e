/**
 * The native addon as TypeScript sees it. Only ts/runtime imports this file; everything above uses Device, Tensor, Queue and Graph.
 * A failing call throws an Error whose `code` is one of LongcatErrorCode.
 * @module
 */

/** What a checkpoint file's header says of one tensor, after checking. */
export interface NativeTensorEntry {
  name: string;
  /** Index into DTYPES; −1: a type of the format that no operation takes. */
  dtype: number;
  /** As the file writes it: "BF16". */
  storedDtype: string;
  shape: number[];
  /** Byte range in the file. */
  begin: number;
  end: number;
}

/** A device: an owner thread with its pool, arena and command ring. Ids are numbers, valid for this device alone. */
export interface NativeDevice {
  readonly kind: "cpu" | "cuda";
  readonly threads: number;
  /** "plain" | "avx2" | "avx512": of the CPU. */
  readonly isa: string;
  /**
   * Zeroed memory of `bytes` as one buffer, and a tensor over it. "host" on a GPU: pinned memory that it reads over the bus, not zeroed.
   * OUT_OF_MEMORY with asked and there.
   */
  allocate(dtype: number, shape: number[], place: "device" | "host"): number;
  /** A tensor within another: `byteOffset` from its start. `rowStride` in elements (0: dense). Checked to lie inside. */
  view(tensor: number, dtype: number, shape: number[], byteOffset: number, rowStride: number): number;
  /**
   * A tensor of a memory-mapped file's numbers. On the CPU they stay where they are; on a GPU they are copied in queue order, into its
   * memory or ("host") into pinned memory that it reads over the bus.
   */
  fromFile(file: NativeMappedFile, entry: NativeTensorEntry, place: "device" | "host"): number;
  /** A stack of tensors of one shape and dtype; no copy. */
  stack(tensors: number[]): number;
  /** A copy of `tensor` in another weight dtype (float32 | bfloat16), made in queue order; FP8 needs its scales (else -1). Waits for room. */
  convert(tensor: number, scale: number, dtype: number): number;
  /** A window that other ranks write into: the id of a zeroed uint8 tensor, and what they need to open it. OUT_OF_MEMORY, COMM_ERROR. */
  window(bytes: number): { tensor: number; handle: Uint8Array };
  /** int64 [ranks] of all ranks' windows as this device sees them; they stay mapped while it lives. COMM_ERROR names rank and reason. */
  joinWindows(own: number, rank: number, handles: Uint8Array[]): number;
  /** Zeroed int32 [count] in host memory, which the device sees as they are. */
  hostWords(count: number): number;
  /** A word of `hostWords` as it is now. */
  getWord(tensor: number, index: number): number;
  /** Sets a word of `hostWords` now, whatever is enqueued. */
  setWord(tensor: number, index: number, value: number): void;
  /** Forgets the id; the memory goes when no command or graph names it any more. */
  release(tensor: number): void;
  /** Bytes held by this device's allocations, mapped files not counted. */
  allocatedBytes(): number;
  /** Recordings that a GPU had no memory to make a graph of: a replay runs their commands one by one. */
  eagerGraphs(): number;
  /** Bytes that could be allocated on this device now. */
  freeBytes(): number;
  /** Takes `bytes` in one piece, from which later allocations are served; OUT_OF_MEMORY with asked and there. Nothing on the CPU. */
  reserve(bytes: number): void;

  /** Enqueues one operation. Tensor id -1: absent. Throws at once if the arguments do not fit; false if the ring is full. */
  enqueue(queue: number, op: number, tensors: Int32Array, scalars: Float64Array): boolean;
  /** Copies `data` now; writes it to the tensor at byteOffset in queue order. False if the ring is full. */
  write(queue: number, tensor: number, byteOffset: number, data: ArrayBufferView): boolean;
  /** Fills `into` with the bytes from byteOffset on once the queue gets there; resolves with the time of that, in milliseconds of the monotonic clock. */
  read(queue: number, tensor: number, byteOffset: number, into: ArrayBufferView): Promise<number>;
  /** Copies bytes from one tensor to another in queue order. False if the ring is full. */
  copy(queue: number, fromTensor: number, fromByte: number, toTensor: number, toByte: number, bytes: number): boolean;
  /** Fills the tensor with one byte value in queue order. False if the ring is full. */
  fill(queue: number, tensor: number, byte: number): boolean;
  /** Marks this place of the queue with event `event` (0 … 255, used again and again). Nothing on the CPU, whose queues are one. */
  signal(queue: number, event: number): boolean;
  /** What is enqueued on the queue afterwards runs after the event's last mark. */
  wait(queue: number, event: number): boolean;
  /** Resolves when all that was enqueued before is done; rejects with the first fault (queue, operation and graph named). */
  done(queue: number): Promise<void>;
  /** Resolves when half of the ring is free. */
  room(queue: number): Promise<void>;
  /** Commands that fit into the ring now. */
  freeSlots(): number;

  /** From here on `enqueue`, `fill`, `copy`, `signal`, `wait` on any queue are kept in a new graph as well as run. */
  beginRecord(): void;
  /** Ends the recording; the graph's id. Writes and reads are not part of it. */
  endRecord(): number;
  replay(queue: number, graph: number): boolean;
  releaseGraph(graph: number): void;
  /**
   * Joins the other ranks' GPUs through NCCL; resolves when all are there. `library`: its path; absent: the usual places. DEVICE_UNAVAILABLE with
   * what was looked for, COMM_ERROR with NCCL's words.
   */
  joinNccl(options: { rank: number; ranks: number; id: Uint8Array; library?: string | undefined }): Promise<NativeCommunicator>;

  /** Finishes what is enqueued, joins the threads, frees all. Idempotent. */
  close(): Promise<void>;
}

/** A rank's part of what joins GPUs through NCCL. */
export interface NativeCommunicator {
  /** What NCCL noticed of its own accord; null: nothing. */
  failure(): string | null;
  /** Microseconds of a captured exchange of `bytes` to and from each other rank. All ranks call it at the same time. */
  measure(bytes: number): Promise<number>;
  /** Ends exchanges under way; resolves when the memory is back, which graphs that were captured with it hold up. */
  abort(): Promise<void>;
}

/** A memory-mapped safetensors file whose header was checked. */
export interface NativeMappedFile {
  readonly path: string;
  readonly bytes: number;
  readonly entries: NativeTensorEntry[];
  close(): void;
}

/** Names of an operation's arguments, in order, for checks in ts/runtime/ops.ts. */
export interface NativeOpInfo {
  name: string;
  tensors: { name: string; use: "in" | "out" | "inout"; optional: boolean }[];
  scalars: string[];
}

/** A GPU as CUDA describes it. */
export interface NativeGpu {
  /** Its number, N of "cuda:N". */
  ordinal: number;
  name: string;
  /** Compute capability: "9.0". */
  capability: string;
  multiprocessors: number;
  memoryBytes: number;
  freeBytes: number;
}

/** How a device is opened. */
export interface NativeDeviceOptions {
  kind: "cpu" | "cuda";
  /** Of the GPU; default 0. */
  ordinal?: number;
  /** Of the pool; 1 for a GPU. */
  threads: number;
  isa?: string;
  poison?: boolean;
  sync?: boolean;
  faultOn?: string;
  /** GPU: a kernel that traps runs in place of this operation, for tests of lost devices. */
  trapOn?: string;
  /** GPU: inputs of products with FP8 weights are quantised per 128 channels. */
  fp8Activations?: boolean;
  /** GPU: a row's bits do not depend on the others of its batch. Default true. */
  batchInvariant?: boolean;
}

export interface NativeAddon {
  /** Version of the package the addon was built from. */
  readonly version: string;
  /** Keys of a split of decode attention (SPLIT_KEYS of ts/model/program.ts). */
  readonly splitKeys: number;
  ops(): NativeOpInfo[];
  /** Threads within affinity and container quota. */
  availableThreads(): number;
  /** Bytes that could be allocated now: the machine's available memory within the container's limit. */
  availableMemory(): number;
  /** Best instruction set of this processor and this build. */
  bestIsa(): string;
  /** `faultOn`: the operation of that name fails when it is run, for tests of error paths. */
  openDevice(options: NativeDeviceOptions): NativeDevice;
  /** The GPUs that this build can use; what keeps it from using others, or any, as a sentence. */
  gpus(): { devices: NativeGpu[]; reason: string | null };
  /** What names a new communicator to all ranks that join it, 128 bytes. DEVICE_UNAVAILABLE with what was looked for. */
  ncclUniqueId(library?: string): Uint8Array;
  /** Opens, maps and checks. CHECKPOINT_INVALID names file and tensor. */
  openSafetensors(path: string): NativeMappedFile;
  /** The tensor's e4m3 codes and its blocks' scales (docs/numerics.md, 7); takes float32 and bfloat16 matrices. */
  quantizeFp8(file: NativeMappedFile, entry: NativeTensorEntry): { data: Uint8Array; scale: Float32Array };
  /** Measured here and now, for `bench`: bytes/s reading a buffer of that size, flop/s of fused multiply-adds. */
  measure(threads: number, bufferBytes: number): { readBytesPerSecond: number; flopsPerSecond: number };
}
