/**
 * A progress bar on standard error, shown only where that is a terminal and only if the work lasts.
 * @module
 */

const WIDTH = 30;
/** Work that ends sooner shows nothing. */
const SHOW_AFTER_MS = 300;
const REDRAW_MS = 80;

/** Draws `label [#####-----] 50 %` in place. Call `end` when the work is over, whatever its outcome. */
export class ProgressBar {
  readonly #label: string;
  readonly #stream: NodeJS.WriteStream;
  readonly #start = Date.now();
  #drawnAt = 0;

  constructor(label: string, stream: NodeJS.WriteStream = process.stderr) {
    this.#label = label;
    this.#stream = stream;
  }

  /** `fraction`: 0 … 1. */
  update(fraction: number): void {
    const now = Date.now();
    if (!this.#stream.isTTY || now - this.#start < SHOW_AFTER_MS || now - this.#drawnAt < REDRAW_MS) return;
    this.#drawnAt = now;
    const done = Math.min(WIDTH, Math.max(0, Math.round(fraction * WIDTH)));
    const percent = String(Math.floor(Math.min(1, fraction) * 100)).padStart(3);
    this.#stream.write(`\r${this.#label} [${"#".repeat(done)}${"-".repeat(WIDTH - done)}] ${percent} %`);
  }

  /** Removes the bar. */
  end(): void {
    if (this.#drawnAt !== 0) this.#stream.write(`\r${" ".repeat(this.#label.length + WIDTH + 10)}\r`);
    this.#drawnAt = 0;
  }
}
