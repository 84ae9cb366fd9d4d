import { setImmediate } from "node:timers/promises";
import { LAST_CHUNK, LAST_CHUNK_IEOF, chunkHead } from "../codec/serialize.ts";
import { IcapError } from "../errors.ts";

/** The other end of a sender. */
export interface SenderLink {
  /** False when nothing more may be written until `ready` resolves. */
  write(pieces: readonly (string | Uint8Array)[]): boolean;
  /** Resolves when more may be written, or when the exchange has ended. */
  ready(): Promise<void>;
  /** The preview is out. Resolves when the server wants the rest, or when the exchange has ended. */
  previewed(): Promise<void>;
  /** The exchange has ended: nothing more is to be sent. */
  readonly ended: boolean;
}

const MAX_CHUNK = 64 * 1024;
/** A source that never waits must not keep others from their turn. */
const BYTES_A_TURN = 1024 * 1024;

/**
 * Sends a message: heads, then the body in chunks of what is at hand, 64 KiB at most; with a preview, its first bytes before the rest.
 * The heads go out with the first chunk, and the last bytes only once the source has ended at the announced size: a body of another size
 * is never complete for the server.
 */
export class BodySender {
  readonly #link: SenderLink;
  readonly #size: number;
  /** What goes out before the next chunk: the heads, or the end of the chunk before it. */
  #pending: string;
  /** Bytes of the preview still to be sent; undefined when there is none, or it is over. */
  #previewLeft: number | undefined;
  #count = 0;
  #turn = 0;

  constructor(link: SenderLink, heads: string, size: number, preview: number | undefined) {
    this.#link = link;
    this.#pending = heads;
    this.#size = size;
    this.#previewLeft = preview;
  }

  /**
   * Resolves once the last chunk is written, or the exchange has ended. `body` is left to the caller, who may have to end it at any moment.
   * @throws IcapError `body_size`; whatever the source throws.
   */
  async send(body: AsyncIterator<Uint8Array>): Promise<void> {
    if (this.#previewLeft === 0 && this.#size > 0) await this.#endPreview([]);
    let last: Uint8Array | undefined;
    for (;;) {
      if (this.#link.ended) return;
      const { value, done } = await body.next();
      if (done === true || this.#link.ended) break;
      if (value.length === 0) continue;
      this.#count += value.length;
      if (this.#count > this.#size) throw new IcapError("body_size", `the body is longer than the ${this.#size} bytes announced`);
      last = await this.#sendBytes(value);
    }
    if (this.#link.ended) return;
    if (this.#count < this.#size) throw new IcapError("body_size", `the body ended after ${this.#count} of ${this.#size} bytes`);
    const end = this.#previewLeft === undefined ? LAST_CHUNK : LAST_CHUNK_IEOF;
    if (last === undefined) this.#link.write([`${this.#pending}${end}`]);
    else this.#link.write([...this.#chunk(last), `${this.#pending}${end}`]);
  }

  /** Sends all of it, except that the body's very last piece is given back. */
  async #sendBytes(bytes: Uint8Array): Promise<Uint8Array | undefined> {
    let at = 0;
    while (at < bytes.length && !this.#link.ended) {
      const piece = bytes.subarray(at, at + Math.min(MAX_CHUNK, this.#previewLeft ?? MAX_CHUNK));
      at += piece.length;
      if (this.#count === this.#size && at === bytes.length) return piece;
      if (this.#previewLeft !== undefined) this.#previewLeft -= piece.length;
      if (this.#previewLeft === 0) await this.#endPreview(this.#chunk(piece));
      else if (!this.#link.write(this.#chunk(piece))) await this.#link.ready();
      this.#turn += piece.length;
      if (this.#turn >= BYTES_A_TURN) await this.#giveTurn();
    }
    return undefined;
  }

  #chunk(piece: Uint8Array): (string | Uint8Array)[] {
    const head = `${this.#pending}${chunkHead(piece.length)}`;
    this.#pending = "\r\n";
    return [head, piece];
  }

  async #endPreview(before: (string | Uint8Array)[]): Promise<void> {
    this.#link.write([...before, `${this.#pending}${LAST_CHUNK}`]);
    this.#pending = "";
    this.#previewLeft = undefined;
    await this.#link.previewed();
  }

  async #giveTurn(): Promise<void> {
    this.#turn = 0;
    await setImmediate();
  }
}

/** Ends a source that nobody reads any more. It may be in the middle of a read; what it says on being ended concerns nobody any more. */
export async function endSource(source: AsyncIterator<Uint8Array>): Promise<void> {
  try {
    await source.return?.();
  } catch {
    // The exchange has its outcome already.
  }
}
