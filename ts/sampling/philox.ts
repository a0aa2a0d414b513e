/**
 * Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"): random bits as a function of a counter and a key, so
 * that a draw depends on seed and position alone. native/ops/sample/philox.h is the same function in C++.
 * @module
 */

/** High and low 32 bits of the product of two unsigned 32-bit integers. */
function multiply(a: number, b: number): [high: number, low: number] {
  const aHigh = a >>> 16;
  const aLow = a & 0xffff;
  const bHigh = b >>> 16;
  const bLow = b & 0xffff;
  // At most (2^16−1)² + 2·(2^16−1) < 2^32 each, so every sum below is exact.
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = aLow * bHigh + (middle & 0xffff);
  return [(aHigh * bHigh + (middle >>> 16) + (carry >>> 16)) >>> 0, Math.imul(a, b) >>> 0];
}

/** Four unsigned 32-bit integers. */
export type Words4 = readonly [number, number, number, number];

/** The ten rounds over `counter` with `key`. All words are unsigned 32-bit integers. */
export function philox4x32(counter: Words4, key: readonly [number, number]): Words4 {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const [aHigh, aLow] = multiply(0xd2511f53, c0);
    const [bHigh, bLow] = multiply(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [(bHigh ^ c1 ^ k0) >>> 0, bLow, (aHigh ^ c3 ^ k1) >>> 0, aLow];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/**
 * A number in [0, 1) with 53 random bits: the draw of `seed` at `position`.
 *
 * @param seed 0 … 2^53−1.
 * @param position the position that the drawn token will have.
 */
export function uniform(seed: number, position: number): number {
  const key = [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0] as const;
  const [a, b] = philox4x32([position >>> 0, 0, 0, 0], key);
  return ((a >>> 5) * 2 ** 26 + (b >>> 6)) * 2 ** -53;
}
