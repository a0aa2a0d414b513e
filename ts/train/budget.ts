/**
 * The controller that holds the number of FFN experts a token uses (the report's Eq. 2): each FFN expert's selection bias moves in
 * proportion to how far its load is from its share. Zero experts' biases stay: they get what is left.
 * @module
 */

/** What is held. */
export interface BudgetOptions {
  /** K_e: FFN experts that a token should use on average, below the K that it chooses. */
  meanExperts: number;
  /** μ at the peak rate. The report decays it and does not say how: here it goes with the learning rate. */
  mu: number;
}

/**
 * Moves `bias` [N+Z] in place after a step.
 *
 * @param counts tokens of the step that chose each FFN expert, [N]
 * @param tokens tokens of the step, of all its batches
 */
export function moveBias(
  bias: Float32Array,
  counts: ArrayLike<number>,
  tokens: number,
  topK: number,
  meanExperts: number,
  mu: number,
): void {
  const wanted = meanExperts / topK / counts.length;
  for (let i = 0; i < counts.length; i++) bias[i]! += mu * (wanted - counts[i]! / (topK * tokens));
}
