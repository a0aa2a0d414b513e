// A small exchange's numbers, the same in every process.

export const sizes = { tokens: 6, topK: 3, experts: 4, zeros: 2, width: 20, ffn: 12 };

const number = (seed) => Math.sin(seed * 12.9898) * 0.9;

/** One expert's matrix, "gate" | "up" | "down". */
export function weightsOf(name, expert) {
  const first = { gate: 1, up: 2, down: 3 }[name] * 10_000 + expert * 1000;
  return Float32Array.from({ length: sizes.width * sizes.ffn }, (_, i) => number(first + i));
}

/** A rank's tokens and their routing, padded to `tokens` rows: of rank r, tokens − r of them. */
export function tokensOfRank(rank) {
  const { tokens, topK, experts, zeros, width } = sizes;
  const rows = tokens - rank;
  const ids = new Int32Array(tokens * topK);
  const weights = new Float32Array(tokens * topK);
  const identity = new Float32Array(tokens);
  for (let t = 0; t < rows; t++) {
    const chosen = Array.from({ length: experts + zeros }, (_, id) => id)
      .sort((a, b) => number(a + 31 * (t + 17 * rank)) - number(b + 31 * (t + 17 * rank)))
      .slice(0, topK)
      .sort((a, b) => a - b);
    ids.set(chosen, t * topK);
    for (let k = 0; k < topK; k++) {
      weights[t * topK + k] = 0.1 + 0.05 * ((t + k + rank) % 7);
      if (chosen[k] >= experts) identity[t] += weights[t * topK + k];
    }
  }
  const h = Float32Array.from({ length: tokens * width }, (_, i) => number(500 + i + rank * 777));
  return { rows, ids, weights, identity, h };
}
