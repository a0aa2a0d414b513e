/**
 * How the tokens of a step are shared by prompts.
 * @module
 */

/**
 * Tokens that each prompt gets of `room`, given what is left of each, the oldest first. The oldest gets half at least, so that it comes to
 * its end. Prompts that fit whole in the other half pass it, the shortest first: a short question does not wait for a long document.
 * What then remains goes by age.
 */
export function sharePromptTokens(rests: readonly number[], room: number): number[] {
  const shares = rests.map(() => 0);
  const give = (i: number, most: number): void => {
    const share = Math.min((rests[i] as number) - (shares[i] as number), most);
    shares[i] = (shares[i] as number) + share;
    room -= share;
  };
  if (rests.length > 0) give(0, Math.ceil(room / 2));
  const shortest = rests
    .map((_, i) => i)
    .slice(1)
    .sort((a, b) => (rests[a] as number) - (rests[b] as number));
  for (const i of shortest) if ((rests[i] as number) <= room) give(i, room);
  for (const i of rests.keys()) give(i, room);
  return shares;
}
