import { BlockReader } from "./block-reader.ts";
import { HeaderBlock } from "./headers.ts";
import { splitHead } from "./head.ts";
import type { IcapLimits } from "./limits.ts";
import { MalformedMessage, quote } from "./malformed.ts";

const LF = 0x0a;
const CR = 0x0d;
const CHUNK_LINE = /^([0-9A-Fa-f]+)[ \t]*(?:;([^]*))?$/;
const IEOF = /(?:^|;)[ \t]*ieof[ \t]*(?:;|$)/i;

export interface ChunkedEnd {
  /** The last chunk said `ieof`: a preview that is the whole body (RFC 3507 section 4.5). */
  readonly ieof: boolean;
  readonly trailer: HeaderBlock;
}

/** Undoes the chunked coding (RFC 2616 section 3.6.1). Nothing is kept but an unfinished chunk line or trailer. */
export class ChunkedDecoder {
  readonly #limits: IcapLimits;
  readonly #onData: (bytes: Buffer) => void;
  readonly #trailer: BlockReader;
  #state: "size" | "data" | "data-cr" | "data-lf" | "trailer" | "done" = "size";
  #line = "";
  #left = 0;
  #ieof = false;
  #end: ChunkedEnd | undefined;

  /** `onData` is called with views into what was pushed. */
  constructor(limits: IcapLimits, onData: (bytes: Buffer) => void) {
    this.#limits = limits;
    this.#onData = onData;
    this.#trailer = new BlockReader(limits);
  }

  /** Set once the empty line after the last chunk has come. */
  get end(): ChunkedEnd | undefined {
    return this.#end;
  }

  /** Reads from `from` on; gives the index of the first byte that is not of this body. @throws MalformedMessage */
  push(bytes: Buffer, from: number): number {
    let at = from;
    while (at < bytes.length && this.#state !== "done") at = this.#step(bytes, at);
    return at;
  }

  #step(bytes: Buffer, at: number): number {
    switch (this.#state) {
      case "size":
        return this.#readLine(bytes, at);
      case "data":
        return this.#readData(bytes, at);
      case "data-cr":
      case "data-lf":
        if (bytes[at] !== (this.#state === "data-cr" ? CR : LF)) throw new MalformedMessage("protocol", "a chunk is longer than its size");
        this.#state = this.#state === "data-cr" ? "data-lf" : "size";
        return at + 1;
      case "trailer":
        return this.#readTrailer(bytes, at);
      case "done":
      default:
        return at;
    }
  }

  #readLine(bytes: Buffer, at: number): number {
    const lf = bytes.indexOf(LF, at);
    const to = lf === -1 ? bytes.length : lf;
    if (this.#line.length + (to - at) > this.#limits.chunkLineBytes) {
      throw new MalformedMessage("limit", `a chunk size with its extensions is longer than ${this.#limits.chunkLineBytes} bytes`);
    }
    this.#line += bytes.toString("latin1", at, to);
    if (lf === -1) return to;
    const line = this.#line;
    this.#line = "";
    if (!line.endsWith("\r")) throw new MalformedMessage("protocol", "a chunk size does not end in CRLF");
    this.#begin(line.slice(0, -1));
    return lf + 1;
  }

  #begin(line: string): void {
    const match = CHUNK_LINE.exec(line);
    if (match === null) throw new MalformedMessage("protocol", `not a chunk size: ${quote(line)}`);
    const digits = match[1] ?? "";
    if (digits.length > this.#limits.chunkSizeDigits) {
      throw new MalformedMessage("limit", `a chunk size of more than ${this.#limits.chunkSizeDigits} digits`);
    }
    this.#left = Number.parseInt(digits, 16);
    this.#state = this.#left === 0 ? "trailer" : "data";
    if (this.#left === 0) this.#ieof = IEOF.test(match[2] ?? "");
  }

  #readData(bytes: Buffer, at: number): number {
    const to = Math.min(bytes.length, at + this.#left);
    this.#left -= to - at;
    if (this.#left === 0) this.#state = "data-cr";
    this.#onData(bytes.subarray(at, to));
    return to;
  }

  #readTrailer(bytes: Buffer, at: number): number {
    const end = this.#trailer.push(bytes, at);
    if (end === -1) return bytes.length;
    const block = this.#trailer.take();
    const trailer = block.length === 2 ? HeaderBlock.empty : HeaderBlock.parse(splitHead(block), 0, this.#limits);
    this.#end = { ieof: this.#ieof, trailer };
    this.#state = "done";
    return end;
  }
}
