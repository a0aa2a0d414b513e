/**
 * Rotary position embedding as a config describes it: which keys say it, and the numbers that follow (docs/model.md, section 3).
 * @module
 */

import { type Fields, shown } from "./fields.js";

/** YaRN: low frequencies divided by `factor`, high ones kept, a ramp between. */
export interface YarnScaling {
  type: "yarn";
  factor: number;
  betaFast: number;
  betaSlow: number;
  /** 0 where absent. */
  mscale: number;
  /** 0 where absent: the softmax scale stays as it is. */
  mscaleAllDim: number;
  /** Multiplies cos and sin; absent: from mscale and mscaleAllDim. */
  attentionFactor: number | null;
  originalMaxPositionEmbeddings: number;
  /** Whether the ramp's ends are rounded to whole dimensions. */
  truncate: boolean;
}

/** What the operations need. */
export interface RopeParameters {
  /** [ropeDim / 2], fp32 */
  invFreq: Float32Array;
  /** Multiplies cos and sin. */
  rotaryScale: number;
  /** Multiplies q·k. */
  softmaxScale: number;
}

/** The part of a model's config that rotation depends on. */
export interface RopeConfig {
  ropeTheta: number;
  ropeScaling: YarnScaling | null;
  qkNopeHeadDim: number;
  qkRopeHeadDim: number;
}

/** The base where a config gives none, as HF transformers has it. */
const DEFAULT_ROPE_THETA = 10_000_000;

/** Reads rope_theta and rope_scaling (legacy) or rope_parameters (transformers 5), which must agree where both are there. */
export function parseRope(
  fields: Fields,
  maxPositionEmbeddings: number,
  onWarning: (message: string) => void,
): { ropeTheta: number; ropeScaling: YarnScaling | null } {
  const sections = [fields.object("rope_parameters"), fields.object("rope_scaling")];
  const names = ["rope_parameters", "rope_scaling"];
  const base = { above: 1, max: 1e15 };
  let theta = fields.optionalNumber("rope_theta", base);
  let thetaKey = "rope_theta";
  let scaling: YarnScaling | null = null;
  let scalingKey = "";
  for (const [i, section] of sections.entries()) {
    if (!section) continue;
    const own = section.optionalNumber("rope_theta", base);
    if (own !== undefined && theta !== undefined && own !== theta) {
      section.fail("rope_theta", `is ${own} but ${thetaKey} is ${theta}: two values of the RoPE base, so one must go`);
    }
    if (own !== undefined && theta === undefined) [theta, thetaKey] = [own, `${names[i]}.rope_theta`];
    const parsed = parseScaling(section, maxPositionEmbeddings);
    if (i === 1 && scalingKey && JSON.stringify(parsed) !== JSON.stringify(scaling)) {
      fields.fail("rope_scaling", `gives ${shown(parsed)} but rope_parameters gives ${shown(scaling)}: they mean the same, so one must go`);
    }
    [scaling, scalingKey] = [parsed, names[i]!];
  }
  if (theta === undefined) onWarning(`config.json gives no RoPE base (rope_theta); ${DEFAULT_ROPE_THETA} is assumed`);
  return { ropeTheta: theta ?? DEFAULT_ROPE_THETA, ropeScaling: scaling };
}

function parseScaling(section: Fields, maxPositionEmbeddings: number): YarnScaling | null {
  const found = section.find("rope_type", "type");
  section.only("partial_rotary_factor", [1], "rotating a part of the dimensions is");
  const type = found?.value ?? "default";
  if (type !== "default" && type !== "yarn") {
    section.fail(
      found!.key,
      `is ${shown(type)}: not supported; accepted: "default", "yarn"`,
      typeof type === "string" ? "CHECKPOINT_UNSUPPORTED" : "CONFIG_INVALID",
    );
  }
  const scaling = type === "yarn" ? parseYarn(section, maxPositionEmbeddings) : null;
  const unknown = section.unused();
  if (unknown.length > 0) section.fail(unknown[0]!, `has no meaning with rope_type ${shown(type)}`);
  return scaling;
}

function parseYarn(section: Fields, maxPositionEmbeddings: number): YarnScaling {
  const original = section.optionalSize("original_max_position_embeddings");
  const factor =
    section.optionalNumber("factor", { min: 1, max: 1e6 }) ?? (original === undefined ? undefined : maxPositionEmbeddings / original);
  if (factor === undefined) section.fail("factor", "is missing");
  if (factor < 1)
    section.fail(
      "original_max_position_embeddings",
      `is ${original}, more than max_position_embeddings ${maxPositionEmbeddings}, and factor is missing`,
    );
  return {
    type: "yarn",
    factor,
    betaFast: section.optionalNumber("beta_fast", { above: 0 }) ?? 32,
    betaSlow: section.optionalNumber("beta_slow", { above: 0 }) ?? 1,
    mscale: section.optionalNumber("mscale", { min: 0, max: 1e3 }) ?? 0,
    mscaleAllDim: section.optionalNumber("mscale_all_dim", { min: 0, max: 1e3 }) ?? 0,
    attentionFactor: section.optionalNumber("attention_factor", { above: 0, max: 1e6 }) ?? null,
    originalMaxPositionEmbeddings: original ?? maxPositionEmbeddings,
    truncate: section.boolean("truncate", true),
  };
}

/** Frequencies and scales. Pure; single precision where HF transformers has it, so that angles have the same bits. */
export function ropeParameters(config: RopeConfig): RopeParameters {
  const { ropeTheta, ropeScaling: yarn, qkRopeHeadDim: dim } = config;
  const f = Math.fround;
  const plain = Array.from({ length: dim / 2 }, (_, j) => f(ropeTheta ** f((2 * j) / dim)));
  const softmaxScale = (config.qkNopeHeadDim + dim) ** -0.5;
  if (!yarn) return { invFreq: Float32Array.from(plain, (p) => 1 / p), rotaryScale: 1, softmaxScale };

  const { low, high } = yarnRange(ropeTheta, dim, yarn);
  const invFreq = Float32Array.from(plain, (p, j) => {
    const ramp = Math.min(Math.max(f(f(j - low) / f(high - low)), 0), 1);
    const kept = f(1 - ramp);
    const interpolated = f(1 / f(yarn.factor * p));
    return f(f(interpolated * f(1 - kept)) + f(f(1 / p) * kept));
  });
  const m = yarnMagnitude(yarn.factor, yarn.mscaleAllDim);
  const fromMscale = yarn.mscale && yarn.mscaleAllDim ? yarnMagnitude(yarn.factor, yarn.mscale) / m : yarnMagnitude(yarn.factor, 1);
  return {
    invFreq,
    rotaryScale: yarn.attentionFactor ?? fromMscale,
    softmaxScale: yarn.mscaleAllDim ? softmaxScale * m * m : softmaxScale,
  };
}

/** The pairs between which YaRN's ramp runs. */
export function yarnRange(theta: number, dim: number, yarn: YarnScaling): { low: number; high: number } {
  const pairOf = (rotations: number) =>
    (dim * Math.log(yarn.originalMaxPositionEmbeddings / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  let low = pairOf(yarn.betaFast);
  let high = pairOf(yarn.betaSlow);
  if (yarn.truncate) [low, high] = [Math.floor(low), Math.ceil(high)];
  low = Math.max(low, 0);
  high = Math.min(high, dim - 1);
  return { low, high: low === high ? high + 0.001 : high };
}

/** YaRN's magnitude correction 0.1 · mscale · ln(factor) + 1. */
export function yarnMagnitude(factor: number, mscale: number): number {
  return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1;
}
