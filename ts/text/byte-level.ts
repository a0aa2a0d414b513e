/**
 * The byte alphabet of byte-level BPE: every byte is written as one printable character in tokenizer.json,
 * and text is turned back into bytes before it is decoded.
 * @module
 */

/** Bytes that stand for themselves: `!`…`~`, `¡`…`¬`, `®`…`ÿ`. The others follow from U+0100 on, in order. */
function isPrintable(byte: number): boolean {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/** `BYTE_CHARACTERS[byte]` is the character that stands for the byte. */
export const BYTE_CHARACTERS: readonly string[] = (() => {
  let shifted = 0;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : 256 + shifted++));
})();

const BYTE_OF_CHARACTER: ReadonlyMap<string, number> = new Map(BYTE_CHARACTERS.map((character, byte) => [character, byte]));
const utf8 = new TextEncoder();

/** The bytes that a token of the vocabulary stands for. Characters outside the alphabet count as their UTF-8. */
export function bytesOfToken(token: string): Uint8Array {
  const bytes: number[] = [];
  for (const character of token) {
    const byte = BYTE_OF_CHARACTER.get(character);
    if (byte === undefined) bytes.push(...utf8.encode(character));
    else bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

/**
 * How many bytes at the end of `bytes` are the beginning of a character that is still unfinished: 0 to 3.
 * Bytes that can no longer become a character are not counted: they decode to U+FFFD whatever follows.
 */
export function unfinishedTail(bytes: Uint8Array): number {
  for (let tail = 1; tail <= 3 && tail <= bytes.length; tail++) {
    const lead = bytes[bytes.length - tail] as number;
    if (lead < 0x80) return 0;
    if (lead < 0xc0) continue; // a continuation byte: look further back
    const length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (tail >= length || lead < 0xc2 || lead > 0xf4) return 0;
    return tail === 1 || secondByteFits(lead, bytes[bytes.length - tail + 1] as number) ? tail : 0;
  }
  return 0;
}

/** Whether `second` may follow `lead`: no overlong form, no surrogate, nothing above U+10FFFF. */
function secondByteFits(lead: number, second: number): boolean {
  const low = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
  const high = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
  return second >= low && second <= high;
}
