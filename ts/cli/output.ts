/**
 * Standard output and standard error of the command line. Standard output carries the result and nothing else.
 * @module
 */

/** Ends quietly when the reader of our output has gone (`longcat generate … | head -1`), and with a word when it cannot be written (a full disk). */
export function endOnFailedOutput(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EPIPE") process.exit(0);
      if (stream === process.stdout) note(`error: standard output cannot be written: ${error.message}`);
      process.exit(1);
    });
  }
}

/** Writes to standard output; resolves when there is room for more. */
export async function print(text: string): Promise<void> {
  if (text === "" || process.stdout.write(text)) return;
  await new Promise<void>((resolve) => process.stdout.once("drain", () => resolve()));
}

/** The one JSON document of `--json`. */
export async function printJson(value: unknown): Promise<void> {
  await print(`${JSON.stringify(value, null, 2)}\n`);
}

/** A line for people on standard error: warnings, errors, figures. */
export function note(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** Wraps `text` in a terminal attribute, only where `stream` is a terminal. */
export function styled(stream: NodeJS.WriteStream, code: "dim" | "bold" | "cyan" | "green", text: string): string {
  const number = { dim: 2, bold: 1, cyan: 36, green: 32 }[code];
  return stream.isTTY && text !== "" ? `\u001b[${number}m${text}\u001b[0m` : text;
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** 24526800 → "23.4 MiB". */
export function formatBytes(bytes: number): string {
  let [value, unit] = [bytes, 0];
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return unit === 0 ? `${value} B` : `${value.toFixed(value < 10 ? 2 : 1)} ${UNITS[unit]}`;
}

/** Rows of cells as aligned lines: text to the left, numbers to the right. */
export function alignColumns(rows: readonly (readonly (string | number)[])[]): string {
  const widths: number[] = [];
  for (const row of rows) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, String(cell).length);
  const pad = (cell: string | number, i: number) =>
    typeof cell === "number" ? String(cell).padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0);
  return rows.map((row) => row.map(pad).join("  ").trimEnd()).join("\n");
}
