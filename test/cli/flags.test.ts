/** The parser of flags, and the progress bar: no process needed. */
import fc from "fast-check";
import { afterEach, describe, expect, it, vi } from "vitest";
import { type Flag, parseFlags, parseNumber, UsageError } from "../../ts/cli/flags.js";
import { alignColumns, formatBytes } from "../../ts/cli/output.js";
import { ProgressBar } from "../../ts/cli/progress.js";

const FLAGS: Flag[] = [
  { name: "number", kind: "number", help: "" },
  { name: "many", kind: "text", repeated: true, help: "" },
  { name: "on", kind: "flag", help: "" },
];

describe("numbers", () => {
  it("every finite number is read back as it was written", () => {
    fc.assert(
      fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (value) => {
        expect(parseFlags(["--number", String(value)], FLAGS, 0).number("number")).toBe(value === 0 && Object.is(value, -0) ? 0 : value);
      }),
    );
  });

  it("any other text is refused or read as a finite number, never as NaN", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        try {
          expect(Number.isFinite(parseNumber("--x", text))).toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(UsageError);
        }
      }),
    );
  });
});

describe("flags", () => {
  it("a negative value may follow its flag; after -- words stay words", () => {
    const flags = parseFlags(["--number", "-1.5", "--many", "-3", "--many=x", "--", "--number"], FLAGS, 1);
    expect([flags.number("number"), flags.texts("many"), flags.positionals]).toEqual([-1.5, ["-3", "x"], ["--number"]]);
  });

  it("a flag without value takes none", () => {
    expect(parseFlags(["--on"], FLAGS, 0).on("on")).toBe(true);
    expect(() => parseFlags(["--on=1"], FLAGS, 0)).toThrow(UsageError);
  });
});

describe("output", () => {
  it("bytes in the unit that fits", () => {
    expect([0, 1023, 1024, 24_526_800, 2 ** 40].map(formatBytes)).toEqual(["0 B", "1023 B", "1.00 KiB", "23.4 MiB", "1.00 TiB"]);
  });

  it("columns line up: text to the left, numbers to the right", () => {
    expect(
      alignColumns([
        ["a", 1, "x"],
        ["long", 100, ""],
      ]),
    ).toBe("a       1  x\nlong  100");
  });
});

describe("progress bar", () => {
  afterEach(() => vi.useRealTimers());

  function drawn(isTTY: boolean): string {
    vi.useFakeTimers();
    let text = "";
    const stream = { isTTY, write: (piece: string) => (text += piece) } as unknown as NodeJS.WriteStream;
    const bar = new ProgressBar("Loading", stream);
    bar.update(0.1);
    vi.advanceTimersByTime(1000);
    bar.update(0.5);
    bar.end();
    return text;
  }

  it("draws on a terminal once the work lasts, and is gone at the end", () => {
    expect(drawn(true)).toMatch(/^\rLoading \[#{15}-{15}\] {2}50 %\r +\r$/);
  });

  it("writes nothing elsewhere", () => {
    expect(drawn(false)).toBe("");
  });
});
