import { formatSize } from "../scan/format-size.ts";

/** Milliseconds between two drawings; a terminal gains nothing from more. */
const REDRAW = 100;
/** Of a terminal that does not say. */
const DEFAULT_COLUMNS = 80;

export interface ProgressStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

/**
 * One line at the bottom of a terminal that says how far things are. Nothing is written where there is no terminal. Whoever writes a line of
 * its own to that terminal calls `clear` first; the next `add` draws it anew.
 */
export class Progress {
  readonly #stream: ProgressStream;
  readonly #clock: () => number;
  readonly #total: number;
  readonly #begun: number;
  #label = "";
  #done = 0;
  #drawn: number | undefined;

  /** `total`: bytes that there will be in all. */
  constructor(total: number, stream: ProgressStream = process.stderr, clock: () => number = () => performance.now()) {
    this.#stream = stream;
    this.#clock = clock;
    this.#total = total;
    this.#begun = clock();
  }

  /** What is being done now; printable. */
  label(text: string): void {
    this.#label = text;
    this.#draw();
  }

  /** So many bytes are done; less than none to take some back. */
  add(bytes: number): void {
    this.#done += bytes;
    if (this.#drawn === undefined || this.#clock() - this.#drawn >= REDRAW) this.#draw();
  }

  /** The same pieces, counted as they are taken; again from the first one, if they have to be sent again. */
  count(pieces: () => AsyncIterable<Uint8Array>): () => AsyncGenerator<Uint8Array> {
    let counted = 0;
    const add = (bytes: number): void => this.add(bytes);
    return async function* () {
      add(-counted);
      counted = 0;
      for await (const piece of pieces()) {
        yield piece;
        counted += piece.length;
        add(piece.length);
      }
    };
  }

  /** Takes the line away. */
  clear(): void {
    if (this.#drawn === undefined) return;
    this.#stream.write("\r\x1b[2K");
    this.#drawn = undefined;
  }

  #draw(): void {
    if (this.#stream.isTTY !== true) return;
    const now = this.#clock();
    const seconds = (now - this.#begun) / 1000;
    const rate = seconds > 0 ? ` · ${(this.#done / 1e6 / seconds).toFixed(1)} MB/s` : "";
    const line = `${formatSize(this.#done)} of ${formatSize(this.#total)}${rate} · ${this.#label}`;
    // A line that wraps could not be taken away again.
    const shown = Array.from(line).slice(0, (this.#stream.columns || DEFAULT_COLUMNS) - 1);
    this.#stream.write(`\r\x1b[2K${shown.join("")}`);
    this.#drawn = now;
  }
}
