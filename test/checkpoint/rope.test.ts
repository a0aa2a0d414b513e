/** Rotation's numbers against the published ones for LongCat-Flash-Lite. */
import { describe, expect, it } from "vitest";
import { ropeParameters, type YarnScaling } from "../../ts/model/config.js";
import { yarnMagnitude, yarnRange } from "../../ts/model/rope.js";

const dims = { qkNopeHeadDim: 128, qkRopeHeadDim: 64 };
const lite: YarnScaling = {
  type: "yarn",
  factor: 10,
  betaFast: 32,
  betaSlow: 1,
  mscale: 1,
  mscaleAllDim: 1,
  attentionFactor: null,
  originalMaxPositionEmbeddings: 32768,
  truncate: true,
};

describe("without scaling", () => {
  const { invFreq, rotaryScale, softmaxScale } = ropeParameters({ ...dims, ropeTheta: 1e7, ropeScaling: null });
  it("frequencies are theta^(-2j/d) in single precision", () => {
    expect(invFreq).toHaveLength(32);
    expect(invFreq[0]).toBe(1);
    for (let j = 0; j < 32; j++) expect(invFreq[j]! / 1e7 ** (-j / 32)).toBeCloseTo(1, 6);
  });
  it("the softmax scale is 192^-0.5", () => expect(softmaxScale).toBeCloseTo(0.0721687836, 10));
  it("cos and sin are not scaled", () => expect(rotaryScale).toBe(1));
});

describe("YaRN of Lite", () => {
  const rope = ropeParameters({ ...dims, ropeTheta: 5e6, ropeScaling: lite });
  const plain = ropeParameters({ ...dims, ropeTheta: 5e6, ropeScaling: null });
  it("ramps between pairs 10 and 18", () => expect(yarnRange(5e6, 64, lite)).toEqual({ low: 10, high: 18 }));
  it("corrects the magnitude by 1.2302585", () => expect(yarnMagnitude(10, 1)).toBeCloseTo(1.2302585, 7));
  it("scales the softmax by 0.1092300521", () => expect(rope.softmaxScale).toBeCloseTo(0.1092300521, 10));
  it("leaves cos and sin alone, both magnitudes being equal", () => expect(rope.rotaryScale).toBe(1));
  it("keeps fast pairs, divides slow ones, blends between", () => {
    expect(rope.invFreq.slice(0, 11)).toEqual(plain.invFreq.slice(0, 11));
    for (let j = 18; j < 32; j++) expect(rope.invFreq[j]! / (plain.invFreq[j]! / 10)).toBeCloseTo(1, 6);
    expect(rope.invFreq[14]! / (plain.invFreq[14]! * (0.5 + 0.05))).toBeCloseTo(1, 6);
  });
  it("scales cos and sin where only a factor is given", () => {
    const { rotaryScale, softmaxScale } = ropeParameters({ ...dims, ropeTheta: 5e6, ropeScaling: { ...lite, mscale: 0, mscaleAllDim: 0 } });
    expect(rotaryScale).toBeCloseTo(1.2302585, 7);
    expect(softmaxScale).toBeCloseTo(0.0721687836, 10);
  });
  it("takes an explicit attention factor", () =>
    expect(ropeParameters({ ...dims, ropeTheta: 5e6, ropeScaling: { ...lite, attentionFactor: 1.5 } }).rotaryScale).toBe(1.5));
  it("does not divide by zero where the ramp has no width", () => {
    const { invFreq } = ropeParameters({ ...dims, ropeTheta: 5e6, ropeScaling: { ...lite, betaFast: 1e-9, betaSlow: 1e-9 } });
    expect([...invFreq].every((f) => Number.isFinite(f) && f > 0)).toBe(true);
  });
});
