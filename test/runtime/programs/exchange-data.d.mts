export const sizes: { tokens: number; topK: number; experts: number; zeros: number; width: number; ffn: number };
export function weightsOf(name: "gate" | "up" | "down", expert: number): Float32Array;
export function tokensOfRank(rank: number): { rows: number; ids: Int32Array; weights: Float32Array; identity: Float32Array; h: Float32Array };
