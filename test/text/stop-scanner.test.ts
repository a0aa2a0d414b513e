/** Stop strings: found across any cut, never shown in part, and held text is not lost. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { StopScanner } from "../../ts/text/index.js";
import { onABusyMachine } from "../helpers/time.js";

/** What comes out of a text that is pushed in pieces. */
function scan(stops: string[], pieces: string[]): { text: string; stopped: boolean } {
  const scanner = new StopScanner(stops);
  const text = pieces.map((piece) => scanner.push(piece)).join("");
  return { text: text + scanner.end(), stopped: scanner.stopped };
}

describe("a stop string", () => {
  it("is found at every cut", () => {
    const text = "coin, pear, shell.";
    for (let cut = 0; cut <= text.length; cut++) {
      expect(scan(["ar, sh"], [text.slice(0, cut), text.slice(cut)])).toEqual({ text: "coin, pe", stopped: true });
    }
  });

  it("is held back while it may be coming, and released when it does not", () => {
    const scanner = new StopScanner(["abcabd"]);
    expect(scanner.push("xabc")).toBe("x");
    expect(scanner.push("abc")).toBe("abc"); // "abcabc": the second abc may still begin it
    expect(scanner.push("e")).toBe("abce");
    expect(scanner.push("abcab")).toBe("");
    expect(scanner.end()).toBe("abcab");
    expect(scanner.stopped).toBe(false);
  });

  it("that ends first wins, of several that end together the longest", () => {
    expect(scan(["bcd", "c"], ["abcd"])).toEqual({ text: "ab", stopped: true });
    expect(scan(["c", "bc"], ["abc"])).toEqual({ text: "a", stopped: true });
  });

  it("must not be empty", () => {
    expect(() => new StopScanner(["x", ""])).toThrow(expect.objectContaining({ code: "OPTION_INVALID" }));
  });

  it("gives nothing more once it is found", () => {
    const scanner = new StopScanner(["!"]);
    expect([scanner.push("a!b"), scanner.push("c"), scanner.end()]).toEqual(["a", "", ""]);
  });
});

it("without stop strings all text passes", () => {
  expect(scan([], ["a", "b"])).toEqual({ text: "ab", stopped: false });
});

it("for any texts, stops and cuts: the text before the first stop to end, whatever the cuts", () => {
  const letters = fc.string({ unit: fc.constantFrom("a", "b", "👍"), maxLength: 30 });
  const stop = fc.string({ unit: fc.constantFrom("a", "b", "👍"), minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(fc.array(letters, { maxLength: 6 }), fc.array(stop, { maxLength: 3 }), (pieces, stops) => {
      const whole = pieces.join("");
      const ends = stops.filter((one) => whole.includes(one)).map((one) => ({ length: one.length, end: whole.indexOf(one) + one.length }));
      const first = ends.sort((a, b) => a.end - b.end || b.length - a.length)[0];
      const expected =
        first === undefined ? { text: whole, stopped: false } : { text: whole.slice(0, first.end - first.length), stopped: true };
      const result = scan(stops, pieces);
      expect(result).toEqual(expected);
      for (const one of stops) expect(result.text).not.toContain(one);
    }),
    { numRuns: 1000 },
  );
});

it("a stop string of a million characters costs a token no more than a short one", () => {
  const scanner = new StopScanner([`${"a".repeat(999_999)}b`, "\n\n", "User:", "###", "</s>"]);
  const start = performance.now();
  for (let token = 0; token < 10_000; token++) expect(scanner.push(" word")).toBe(" word");
  expect(performance.now() - start).toBeLessThan(onABusyMachine(500));
});
