import type { IcapLimits } from "./limits.ts";
import { MalformedMessage } from "./malformed.ts";

const LF = 0x0a;
const CR = 0x0d;

/** Collects a block of CRLF lines up to its empty line: an ICAP head, or a trailer. Bytes come in any split. */
export class BlockReader {
  readonly #limits: IcapLimits;
  #kept: Buffer | undefined;
  #length = 0;
  /** Bytes of the line that is being read. */
  #line = 0;
  #previous = 0;

  constructor(limits: IcapLimits) {
    this.#limits = limits;
  }

  get empty(): boolean {
    return this.#length === 0;
  }

  /**
   * Reads from `from` on. Gives the index after the block once its empty line has come, -1 as long as it has not; the bytes are then
   * kept, up to `headerBytes`.
   * @throws MalformedMessage for a line that does not end in CRLF, or a block that is too long.
   */
  push(bytes: Buffer, from: number): number {
    let at = from;
    for (;;) {
      const lf = bytes.indexOf(LF, at);
      const stop = lf === -1 ? bytes.length : lf;
      const tooLong = this.#length + (stop - from) + (lf === -1 ? 0 : 1) > this.#limits.headerBytes;
      if (tooLong) throw new MalformedMessage("limit", `a head is longer than ${this.#limits.headerBytes} bytes`);
      if (lf === -1) {
        this.#line += stop - at;
        this.#keep(bytes, from, stop);
        return -1;
      }
      const before = lf > from ? bytes[lf - 1] : this.#previous;
      if (before !== CR) throw new MalformedMessage("protocol", "a line does not end in CRLF");
      const line = this.#line + (lf - at);
      this.#line = 0;
      at = lf + 1;
      if (line === 1) {
        this.#end(bytes, from, at);
        return at;
      }
    }
  }

  /** The whole block with its empty line, once `push` has found it. The next `push` begins another. */
  take(): Buffer {
    const block = (this.#kept ?? Buffer.alloc(0)).subarray(0, this.#length);
    this.#kept = undefined;
    this.#length = 0;
    this.#previous = 0;
    return block;
  }

  #end(bytes: Buffer, from: number, to: number): void {
    if (this.#length > 0) {
      this.#keep(bytes, from, to);
    } else {
      this.#kept = bytes.subarray(from, to);
      this.#length = to - from;
    }
  }

  #keep(bytes: Buffer, from: number, to: number): void {
    if (to === from) return;
    const needed = this.#length + (to - from);
    if (this.#kept === undefined || this.#kept.length < needed) {
      // Doubled, so that a peer that sends one byte at a time costs no more than one that does not.
      const grown = Buffer.allocUnsafe(Math.max(1024, needed, Math.min(2 * this.#length, this.#limits.headerBytes)));
      this.#kept?.copy(grown, 0, 0, this.#length);
      this.#kept = grown;
    }
    bytes.copy(this.#kept, this.#length, from, to);
    this.#length = needed;
    this.#previous = bytes[to - 1] ?? 0;
  }
}
