/**
 * The operations, one typed function each. Shapes and mathematics: native/ops/<op>/params.h, whose names these are, in camel case.
 * Which arguments there are, in which order, the addon says itself.
 * @module
 */

import { LongcatError } from "../errors.js";
import { loadAddon } from "./addon.js";
import type { NativeOpInfo } from "./binding.js";
import { type Queue, Tensor } from "./device.js";

/** A weight matrix (or stack of them): stored numbers, and the block scales of FP8. */
export interface Weight {
  data: Tensor;
  scale?: Tensor | undefined;
}

/** A weight that may come without a scale's place. */
type AnyWeight = Weight | Tensor;

/** Arguments of each operation. */
export interface OpArguments {
  embed: { tokens: Tensor; table: Tensor; out: Tensor; rows: Tensor };
  ngramEmbed: {
    positions: Tensor;
    rowSlot: Tensor;
    history: Tensor;
    wordTable: Tensor;
    out: Tensor;
    rows: Tensor;
    tables: readonly NgramTable[];
    neighbors: number;
    splits: number;
    endId: number;
  };
  rmsNorm: {
    x: Tensor;
    add?: Tensor | undefined;
    add2?: Tensor | undefined;
    weight: Tensor;
    sum?: Tensor | undefined;
    out: Tensor;
    rows: Tensor;
    eps: number;
  };
  linear: {
    x: Tensor;
    rowIndex?: Tensor | undefined;
    weight: AnyWeight;
    bias?: Tensor | undefined;
    out: Tensor;
    rows: Tensor;
    scratch?: Tensor | undefined;
  };
  swigluMlp: { x: Tensor; gate: AnyWeight; up: AnyWeight; down: AnyWeight; hidden: Tensor; out: Tensor; rows: Tensor };
  mlaProject: {
    x: Tensor;
    qA: AnyWeight;
    qABias?: Tensor | undefined;
    qANorm: Tensor;
    qB: AnyWeight;
    kvA: AnyWeight;
    kvABias?: Tensor | undefined;
    kvANorm: Tensor;
    cosSin: Tensor;
    positions: Tensor;
    rowSlot: Tensor;
    blockTables: Tensor;
    qLatent: Tensor;
    kvLatent: Tensor;
    latentLanes?: Tensor | undefined;
    q: Tensor;
    cache: Tensor;
    rows: Tensor;
    heads: number;
    nope: number;
    rope: number;
    eps: number;
    qScale: number;
    kvScale: number;
  };
  mlaPrefill: AttentionArguments & {
    seqStart: Tensor;
    seqSlot: Tensor;
    state: Tensor;
    expanded?: Tensor | undefined;
    accumulator?: Tensor | undefined;
    roundPlan?: Tensor | undefined;
    latents?: Tensor | undefined;
    maxKeys: number;
  };
  mlaDecode: AttentionArguments & { rowSlot: Tensor; splits: Tensor; qLatent: Tensor; partial: Tensor };
  moeRoute: {
    h: Tensor;
    classifier: Tensor;
    bias: Tensor;
    scores: Tensor;
    ids: Tensor;
    weights: Tensor;
    identityWeight: Tensor;
    ffnCount: Tensor;
    expertStart?: Tensor | undefined;
    planRow?: Tensor | undefined;
    slotPlan?: Tensor | undefined;
    rows: Tensor;
    experts: number;
    factor: number;
  };
  moeExperts: {
    h: Tensor;
    gate: AnyWeight;
    up: AnyWeight;
    down: AnyWeight;
    weights?: Tensor | undefined;
    identityWeight?: Tensor | undefined;
    expertStart: Tensor;
    planRow: Tensor;
    slotPlan?: Tensor | undefined;
    hidden: Tensor;
    partial: Tensor;
    out?: Tensor | undefined;
    rows?: Tensor | undefined;
    /** Entries that the plan will have, about; 0: as many as there is room for. */
    expected: number;
  };
  epDispatch: ExchangeArguments & {
    ids: Tensor;
    weights: Tensor;
    received: Tensor;
    expertStart: Tensor;
    planRow: Tensor;
    experts: number;
  };
  epCombine: ExchangeArguments & { partial: Tensor; identityWeight: Tensor; out: Tensor };
  stepPlan: {
    counts: Tensor;
    tokenIds: Tensor;
    promptPositions: Tensor;
    seqStart: Tensor;
    seqSlot: Tensor;
    seqLimit: Tensor;
    seqNext: Tensor;
    logitRows?: Tensor | undefined;
    invFreq: Tensor;
    history: Tensor;
    lengths: Tensor;
    tokens: Tensor;
    positions: Tensor;
    rowSlot: Tensor;
    cosSin: Tensor;
    splits: Tensor;
    logitPosition?: Tensor | undefined;
    logitToken?: Tensor | undefined;
    rotaryScale: number;
    ahead: number;
  };
  draftPlan: {
    counts: Tensor;
    seqStart: Tensor;
    seqSlot: Tensor;
    positions: Tensor;
    rowSlot: Tensor;
    history: Tensor;
    lengths: Tensor;
    following: Tensor;
    draftRow: Tensor;
    draftSlot: Tensor;
    draftPosition: Tensor;
  };
  sample: {
    logits: Tensor;
    logitSlot: Tensor;
    logitPosition: Tensor;
    params: Tensor;
    allowed: Tensor;
    adjustments: Tensor;
    numAdjustments: Tensor;
    mask: Tensor;
    history: Tensor;
    tokens: Tensor;
    logprob?: Tensor | undefined;
    topIds?: Tensor | undefined;
    topLogprobs?: Tensor | undefined;
    rows: Tensor;
    logitToken?: Tensor | undefined;
    lengths?: Tensor | undefined;
    candidateIds?: Tensor | undefined;
    candidateExps?: Tensor | undefined;
    candidateStats?: Tensor | undefined;
    draft: number;
    mostRows: number;
  };
  tokenLogprobs: { logits: Tensor; targets: Tensor; out: Tensor; rows: Tensor };
  randomFill: { out: Tensor; seed: number; low: number; high: number };
  timestamp: { out: Tensor };

  // What trains: native/ops/<op>/backward/params.h. Gradients of weights (d…) are added to; all is float32, on the CPU.
  linearBackward: {
    x: Tensor;
    weight: AnyWeight;
    dWeight: AnyWeight;
    bias?: Tensor | undefined;
    dBias?: Tensor | undefined;
    dOut: Tensor;
    dX: Tensor;
    rows: Tensor;
  };
  rmsNormBackward: {
    sum: Tensor;
    weight: Tensor;
    dWeight: Tensor;
    dOut: Tensor;
    dOut2?: Tensor | undefined;
    dResidual?: Tensor | undefined;
    dSum: Tensor;
    scales: Tensor;
    rows: Tensor;
    eps: number;
  };
  swigluMlpBackward: SwigluGradients & { x: Tensor; dX: Tensor };
  mlaProjectBackward: {
    x: Tensor;
    qA: AnyWeight;
    dQA: AnyWeight;
    qABias?: Tensor | undefined;
    dQABias?: Tensor | undefined;
    qANorm: Tensor;
    dQANorm: Tensor;
    qB: AnyWeight;
    dQB: AnyWeight;
    kvA: AnyWeight;
    dKvA: AnyWeight;
    kvABias?: Tensor | undefined;
    dKvABias?: Tensor | undefined;
    kvANorm: Tensor;
    dKvANorm: Tensor;
    cosSin: Tensor;
    dQ: Tensor;
    dLatents: Tensor;
    dX: Tensor;
    qLatent: Tensor;
    qNormed: Tensor;
    dQLatent: Tensor;
    kvLatent: Tensor;
    scales: Tensor;
    rows: Tensor;
    heads: number;
    nope: number;
    rope: number;
    eps: number;
    qScale: number;
    kvScale: number;
  };
  mlaPrefillBackward: {
    q: Tensor;
    latents: Tensor;
    kvB: AnyWeight;
    dKvB: AnyWeight;
    seqStart: Tensor;
    counts: Tensor;
    out: Tensor;
    state: Tensor;
    dOut: Tensor;
    dQ: Tensor;
    dLatents: Tensor;
    dExpanded: Tensor;
    dRopeKeys: Tensor;
    heads: number;
    nope: number;
    rope: number;
    vDim: number;
    softmaxScale: number;
  };
  moeRouteBackward: {
    h: Tensor;
    classifier: Tensor;
    dClassifier: Tensor;
    scores: Tensor;
    ids: Tensor;
    dWeights: Tensor;
    dScore?: Tensor | undefined;
    dH: Tensor;
    dLogits: Tensor;
    rows: Tensor;
    factor: number;
  };
  moeExpertsBackward: SwigluGradients & {
    h: Tensor;
    weights: Tensor;
    identityWeight: Tensor;
    expertStart: Tensor;
    planRow: Tensor;
    slotPlan: Tensor;
    dH: Tensor;
    dWeights: Tensor;
    partial: Tensor;
  };
  embedBackward: { tokens: Tensor; dTable: Tensor; dOut: Tensor; rows: Tensor };
  ngramEmbedBackward: {
    positions: Tensor;
    rowSlot: Tensor;
    history: Tensor;
    dWordTable: Tensor;
    dOut: Tensor;
    rows: Tensor;
    tables: readonly NgramTable[];
    neighbors: number;
    splits: number;
    endId: number;
  };
  crossEntropy: { logits: Tensor; targets: Tensor; scale: Tensor; loss: Tensor; dLogits?: Tensor | undefined; rows: Tensor };
  hiddenZLoss: { x: Tensor; scale: Tensor; loss: Tensor; dX: Tensor; rows: Tensor };
  balanceLoss: {
    scores: Tensor;
    ids: Tensor;
    loss: Tensor;
    share: Tensor;
    probability: Tensor;
    dScore: Tensor;
    rows: Tensor;
    experts: number;
    groups: number;
    meanExperts: number;
    alpha: number;
  };
  gradientNorm: { gradients: Tensor; partial: Tensor; norm: Tensor; factor: Tensor; most: number };
  adamw: {
    weight: Tensor;
    gradient: Tensor;
    momentum: Tensor;
    variance: Tensor;
    factor: Tensor;
    rate: number;
    beta1: number;
    beta2: number;
    epsilon: number;
    decay: number;
    step: number;
  };
}

/** An n-gram table and its projection; their gradients where an operation takes them. */
interface NgramTable {
  table: Tensor;
  dTable?: Tensor;
  projection: Tensor;
  dProjection?: Tensor;
}

/** What the backward of an FFN takes, dense or an expert's. */
interface SwigluGradients {
  gate: AnyWeight;
  dGate: AnyWeight;
  up: AnyWeight;
  dUp: AnyWeight;
  down: AnyWeight;
  dDown: AnyWeight;
  dOut: Tensor;
  gateRows: Tensor;
  upRows: Tensor;
  hiddenRows: Tensor;
  rows: Tensor;
}

/** What both halves of an exchange between ranks take. */
interface ExchangeArguments {
  h: Tensor;
  rows: Tensor;
  windows: Tensor;
  window: Tensor;
  epoch: Tensor;
  control: Tensor;
  sendSlot: Tensor;
  slotPlan: Tensor;
  rank: number;
  windowTokens: number;
  /** 1: rows travel as FP8; else 0. */
  fp8: number;
  /** Through NCCL alone: a second tensor of the window's size, from which it takes what the other ranks get. */
  outbox?: Tensor | undefined;
  /**
   * With an outbox: int32 [2 · ranks] of `hostWords`, where the host sees how many rows there are, and only these travel; such operations cannot
   * be recorded. Without it as many rows travel as the program has room for.
   */
  counts?: Tensor | undefined;
}

/** What both forms of attention take. */
interface AttentionArguments {
  q: Tensor;
  cache: Tensor;
  kvB: AnyWeight;
  positions: Tensor;
  blockTables: Tensor;
  counts: Tensor;
  out: Tensor;
  heads: number;
  nope: number;
  rope: number;
  vDim: number;
  softmaxScale: number;
}

/** Each enqueues its operation. Throws INTERNAL if the arguments do not fit, or the ring is full. */
export type Ops = { readonly [Name in keyof OpArguments]: (queue: Queue, args: OpArguments[Name]) => void };

/** Arguments by name, as the encoders see them. */
type Arguments = Readonly<Record<string, unknown>>;

/** Turns an operation's arguments into the addon's two lists, which are used again by the next call. */
class Encoder {
  readonly id: number;
  readonly #name: string;
  readonly #tensors: ((args: Arguments) => Tensor | undefined)[];
  /** Name of the list that goes on for ever, if there is one. */
  readonly #list: string | undefined;
  readonly #scalars: string[];
  readonly #ids: Int32Array;
  readonly #numbers: Float64Array;

  constructor(id: number, info: NativeOpInfo) {
    this.id = id;
    this.#name = info.name;
    const named = info.tensors.filter(({ name }) => !name.endsWith("..."));
    this.#list = info.tensors.map(({ name }) => name).find((name) => name.endsWith("...")) && "tables";
    const names = named.map(({ name }) => name);
    this.#tensors = names.map((name) => tensorOf(name, names));
    this.#scalars = info.scalars.map(camelCase);
    this.#ids = new Int32Array(names.length);
    this.#numbers = new Float64Array(info.scalars.length);
  }

  tensors(args: Arguments): Int32Array {
    this.#tensors.forEach((get, i) => {
      this.#ids[i] = get(args)?.id ?? ABSENT;
    });
    if (!this.#list) return this.#ids;
    const tables = args[this.#list] as readonly NgramTable[];
    const listed = tables.flatMap(({ table, dTable, projection, dProjection }) => [table, dTable, projection, dProjection]);
    return Int32Array.from([...this.#ids, ...listed.flatMap((tensor) => tensor?.id ?? [])]);
  }

  scalars(args: Arguments): Float64Array {
    this.#scalars.forEach((name, i) => {
      const value = args[name];
      if (typeof value !== "number") throw new LongcatError("INTERNAL", `${this.#name}: number "${name}" is missing`);
      this.#numbers[i] = value;
    });
    return this.#numbers;
  }
}

const ABSENT = -1;

/** Where a tensor comes from: an argument of its name, or the scale of the weight before it. */
function tensorOf(name: string, names: readonly string[]): (args: Arguments) => Tensor | undefined {
  const owner = name === "scale" ? "weight" : /^(.+)_scale$/.exec(name)?.[1];
  const key = camelCase(owner !== undefined && names.includes(owner) ? owner : name);
  const isScale = owner !== undefined && names.includes(owner);
  return (args) => {
    const value = args[key] as AnyWeight | undefined;
    if (value === undefined) return undefined;
    if (value instanceof Tensor) return isScale ? undefined : value;
    return isScale ? value.scale : value.data;
  };
}

function camelCase(name: string): string {
  return name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
}

let encoders: Map<string, Encoder> | undefined;

function encoderOf(name: string): Encoder {
  encoders ??= new Map(
    loadAddon()
      .ops()
      .map((info, id) => [camelCase(info.name), new Encoder(id, info)]),
  );
  const encoder = encoders.get(name);
  if (!encoder) throw new LongcatError("INTERNAL", `the addon has no operation "${name}"`);
  return encoder;
}

function operation<Name extends keyof OpArguments>(name: Name): (queue: Queue, args: OpArguments[Name]) => void {
  let encoder: Encoder | undefined;
  return (queue, args) => {
    encoder ??= encoderOf(name);
    queue.enqueue(encoder.id, encoder.tensors(args as unknown as Arguments), encoder.scalars(args as unknown as Arguments));
  };
}

/** The operations. */
export const ops: Ops = {
  embed: operation("embed"),
  ngramEmbed: operation("ngramEmbed"),
  rmsNorm: operation("rmsNorm"),
  linear: operation("linear"),
  swigluMlp: operation("swigluMlp"),
  mlaProject: operation("mlaProject"),
  mlaPrefill: operation("mlaPrefill"),
  mlaDecode: operation("mlaDecode"),
  moeRoute: operation("moeRoute"),
  moeExperts: operation("moeExperts"),
  epDispatch: operation("epDispatch"),
  epCombine: operation("epCombine"),
  stepPlan: operation("stepPlan"),
  draftPlan: operation("draftPlan"),
  sample: operation("sample"),
  tokenLogprobs: operation("tokenLogprobs"),
  randomFill: operation("randomFill"),
  timestamp: operation("timestamp"),
  linearBackward: operation("linearBackward"),
  rmsNormBackward: operation("rmsNormBackward"),
  swigluMlpBackward: operation("swigluMlpBackward"),
  mlaProjectBackward: operation("mlaProjectBackward"),
  mlaPrefillBackward: operation("mlaPrefillBackward"),
  moeRouteBackward: operation("moeRouteBackward"),
  moeExpertsBackward: operation("moeExpertsBackward"),
  embedBackward: operation("embedBackward"),
  ngramEmbedBackward: operation("ngramEmbedBackward"),
  crossEntropy: operation("crossEntropy"),
  hiddenZLoss: operation("hiddenZLoss"),
  balanceLoss: operation("balanceLoss"),
  gradientNorm: operation("gradientNorm"),
  adamw: operation("adamw"),
};
