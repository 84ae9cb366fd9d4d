/**
 * Media on its way: written once, read by as many as need it (digests, scanners, the client), each at its own pace. It holds the bytes
 * as they came, in memory or in a file without a name that is encrypted, never what was decrypted here.
 */
import { GatewayError } from "../errors.ts";
import type { Reservation } from "./spool-budget.ts";
import { SpoolFile, type SpoolFileReader } from "./spool-file.ts";

export interface Spool {
  /** Bytes written so far; final after `end`. */
  readonly size: number;
  /**
   * Takes the chunk over, so nobody writes to its bytes any more; resolves when the writer may go on. One write at a time.
   * @throws GatewayError `too_large` when more comes than was reserved, `no_room` when the disk fails: the spool has then failed with
   *   that error.
   */
  write(chunk: Uint8Array): Promise<void>;
  /** The last byte was written. What was reserved beyond it is given back. */
  end(): void;
  /** The bytes can't be had to the end: readers, now and later, throw this error after what is there. Nothing after `end`. */
  fail(error: Error): void;
  /**
   * A pass from the first byte that follows the writer to the end. The buffers stay as they are for as long as they are held; other readers
   * may be given the same ones, so nobody writes to them.
   */
  read(): AsyncIterable<Buffer>;
  /** Gives everything back; readers still at it throw. Idempotent. */
  close(): Promise<void>;
}

/** Bytes in one read, and the most that a spool with a file holds back in memory before it writes them. */
const BLOCK = 128 * 1024;

/**
 * Chunks of at least so many bytes are kept as they are, where they are nearly all that their memory holds. The others are copied: what a peer sends byte by byte, or
 * hides in something larger, would take a multiple of what was reserved for it.
 */
const KEPT_AS_IT_IS = 4 * 1024;
const NEARLY_ALL = 7 / 8;

const DONE: IteratorReturnResult<undefined> = { done: true, value: undefined };

/**
 * Bytes [0, onDisk) are in the file, [onDisk, size) in blocks. Blocks are appended to and dropped, never reused: a reader may hold a piece of
 * one for as long as it likes.
 */
export class PooledSpool implements Spool {
  readonly #capacity: number;
  readonly #reservation: Reservation;
  readonly #directory: string;
  readonly #onClose: (spool: PooledSpool) => void;
  #file: SpoolFile | undefined;
  /** The most that may be held in blocks; more to come moves them to the file. */
  #window: number;
  /** All full but the last. */
  #blocks: Buffer[] = [];
  /** Where each of them begins, from the first byte that is held. */
  #starts: number[] = [];
  #lastFill = 0;
  #held = 0;
  #onDisk = 0;
  #ended = false;
  #failure: Error | undefined;
  #closing: Promise<void> | undefined;
  /** The one write to the file in flight. */
  #flushing: Promise<void> | undefined;
  /** What readers at the end wait for: more bytes, or the end. */
  #change: PromiseWithResolvers<void> | undefined;

  /**
   * @param file where it begins on disk, undefined where it begins in memory
   * @param directory of a file that it makes once it has outgrown its memory
   * @param onClose is called once, when all is given back
   */
  constructor(
    capacity: number,
    reservation: Reservation,
    file: SpoolFile | undefined,
    directory: string,
    onClose: (spool: PooledSpool) => void,
  ) {
    this.#capacity = capacity;
    this.#reservation = reservation;
    this.#file = file;
    this.#window = file === undefined ? reservation.memory : BLOCK;
    this.#directory = directory;
    this.#onClose = onClose;
  }

  get size(): number {
    return this.#onDisk + this.#held;
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#assertWhole();
    if (this.#ended || this.#flushing !== undefined) throw new Error("a spool is written to once, one write at a time");
    if (chunk.length > this.#capacity - this.size) {
      const error = new GatewayError("too_large", { detail: `more than the ${this.#capacity} bytes that were expected` });
      this.fail(error);
      throw error;
    }
    let rest = this.#keep(chunk);
    while (rest.length > 0) {
      await this.#flush();
      this.#assertWhole();
      rest = this.#keep(rest);
    }
  }

  end(): void {
    if (this.#ended || this.#failure !== undefined || this.#closing !== undefined) return;
    if (this.#flushing !== undefined) throw new Error("a spool ends after its last write, not during it");
    this.#ended = true;
    if (this.#file === undefined) this.#trim();
    else if (this.#held > 0) void this.#flush();
    this.#reservation.shrinkTo(this.#file === undefined ? this.size : 0, this.#file === undefined ? 0 : this.size);
    this.#wake();
  }

  fail(error: Error): void {
    if (this.#ended || this.#failure !== undefined) return;
    this.#failure = error;
    this.#wake();
  }

  read(): AsyncIterable<Buffer> {
    return { [Symbol.asyncIterator]: () => this.#pass() };
  }

  close(): Promise<void> {
    this.#closing ??= this.#release();
    this.#wake();
    return this.#closing;
  }

  #assertWhole(): void {
    if (this.#closing !== undefined) throw wasClosed();
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Takes what the window has room for; what is left of the chunk comes back. */
  #keep(chunk: Uint8Array): Uint8Array {
    let rest = chunk;
    while (rest.length > 0) {
      const room = this.#window - this.#held;
      const last = this.#blocks.at(-1);
      if (last !== undefined && this.#lastFill < last.length) {
        const part = rest.subarray(0, last.length - this.#lastFill);
        last.set(part, this.#lastFill);
        this.#lastFill += part.length;
        this.#held += part.length;
        rest = rest.subarray(part.length);
      } else if (room === 0) {
        break;
      } else if (isKeptAsItIs(rest)) {
        // What is held goes to the file first, so that this need not be cut.
        if (rest.length > room && this.#held > 0) break;
        const block = Buffer.from(rest.buffer, rest.byteOffset, Math.min(rest.length, room));
        this.#push(block);
        this.#lastFill = block.length;
        this.#held += block.length;
        rest = rest.subarray(block.length);
      } else {
        this.#push(Buffer.allocUnsafeSlow(Math.min(room, this.#capacity - this.size, BLOCK)));
        this.#lastFill = 0;
      }
    }
    this.#wake();
    return rest;
  }

  /** Moves the blocks to the file. Never rejects: a disk that fails fails the spool, even one that had ended. */
  async #flush(): Promise<void> {
    this.#flushing = this.#moveToFile();
    try {
      await this.#flushing;
    } catch (error) {
      this.#failure ??= error instanceof Error ? error : new GatewayError("no_room", { cause: error });
      this.#wake();
    } finally {
      this.#flushing = undefined;
    }
  }

  async #moveToFile(): Promise<void> {
    this.#file ??= await SpoolFile.open(this.#directory);
    this.#trim();
    await this.#file.write(this.#blocks, this.#onDisk);
    this.#onDisk += this.#held;
    this.#held = 0;
    this.#blocks = [];
    this.#starts = [];
    this.#window = BLOCK;
    this.#reservation.shrinkTo(0, this.#reservation.disk);
  }

  /** Makes the last block as long as what is in it. */
  #trim(): void {
    const last = this.#blocks.at(-1);
    if (last === undefined || last.length === this.#lastFill) return;
    const exact = Buffer.allocUnsafeSlow(this.#lastFill);
    last.copy(exact, 0, 0, this.#lastFill);
    this.#blocks[this.#blocks.length - 1] = exact;
  }

  #pass(): AsyncIterator<Buffer, undefined> {
    let position = 0;
    let over = false;
    let reader: SpoolFileReader | undefined;
    const next = async (): Promise<IteratorResult<Buffer, undefined>> => {
      while (!over) {
        if (this.#closing !== undefined) {
          over = true;
          throw wasClosed();
        }
        const start = position;
        if (start < this.#onDisk && this.#file !== undefined) {
          // The position moves before the wait, so calls that overlap get different pieces.
          position += Math.min(BLOCK, this.#onDisk - start);
          reader ??= this.#file.reader();
          const value = await reader.read(start, position - start).catch((error: unknown) => {
            over = true;
            throw error;
          });
          if (this.#closing === undefined) return { done: false, value };
        } else if (start < this.size) {
          const value = this.#heldAt(start);
          position += value.length;
          return { done: false, value };
        } else if (this.#failure !== undefined) {
          over = true;
          throw this.#failure;
        } else if (this.#ended) {
          over = true;
        } else {
          this.#change ??= Promise.withResolvers<void>();
          await this.#change.promise;
        }
      }
      return DONE;
    };
    return {
      next,
      // Whoever leaves while waiting for more is let go at once.
      return: () => {
        over = true;
        this.#wake();
        return Promise.resolve(DONE);
      },
    };
  }

  #push(block: Buffer): void {
    this.#blocks.push(block);
    this.#starts.push(this.#held);
  }

  /** What the block that holds this position has from there on. */
  #heldAt(position: number): Buffer {
    const offset = position - this.#onDisk;
    let index = 0;
    // By halves: a peer that sends byte by byte makes many blocks.
    for (let above = this.#starts.length; index + 1 < above;) {
      const middle = (index + above) >> 1;
      if ((this.#starts[middle] ?? Infinity) <= offset) index = middle;
      else above = middle;
    }
    const block = this.#blocks[index];
    if (block === undefined) throw new RangeError("a position that no block holds");
    return block.subarray(offset - (this.#starts[index] ?? 0), index === this.#blocks.length - 1 ? this.#lastFill : block.length);
  }

  #wake(): void {
    this.#change?.resolve();
    this.#change = undefined;
  }

  async #release(): Promise<void> {
    try {
      await this.#flushing?.catch(() => undefined);
      await this.#file?.close();
    } catch {
      // The system takes the descriptor back even when it reports that closing failed; the bytes are of no more use.
    }
    this.#blocks = [];
    this.#reservation.shrinkTo(0, 0);
    this.#onClose(this);
  }
}

function isKeptAsItIs({ length, buffer }: Uint8Array): boolean {
  return length >= KEPT_AS_IT_IS && length >= NEARLY_ALL * buffer.byteLength;
}

function wasClosed(): GatewayError {
  return new GatewayError("internal", { detail: "the spool was closed" });
}
