/**
 * What speculative decoding gives and costs, as plain functions: how many tokens a step draws, and how much faster they come.
 * @module
 */

/**
 * Ω: tokens that a step with `drafts` drafts draws on average. `shares[i]`: of the drafts i whose predecessors were all accepted, the share
 * that was accepted too; beyond the last, drafts fare as the last does.
 */
export function stepLength(shares: readonly number[], drafts: number): number {
  let length = 1;
  let reached = 1;
  for (let i = 0; i < drafts; i++) {
    reached *= shares[i] ?? shares.at(-1) ?? 0;
    length += reached;
  }
  return length;
}

/**
 * How much faster tokens come: the inverse of MagicDec's T_SD/T_T = (γ·T_D/T_T + T_V(γ)/T_T) / Ω(γ, α). `cost` is what stands in the
 * brackets: the time of a step with drafts, verification and drafting together, over that of a step without.
 */
export function speedup(length: number, cost: number): number {
  return length / cost;
}
