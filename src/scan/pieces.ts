/** Digests of pieces: made while media arrives for the first time, checked whenever it passes again. */
import { createHash, type Hash } from "node:crypto";
import { DIGEST_SIZE, HEAD_SIZE, PIECE_SIZE, type SourceRecord } from "../verdicts/store.ts";

/** SHA-256 of all bytes, and of their pieces, however they are cut when they come; the first piece and its head cost no pass of their own. */
export class PieceHasher {
  readonly #all = createHash("sha256");
  /** Of a piece behind the first one. */
  #hash: Hash | undefined;
  #size = 0;
  #next = HEAD_SIZE;
  readonly #digests: Buffer[] = [];

  update(chunk: Buffer): void {
    for (let from = 0; from < chunk.length;) {
      const part = chunk.subarray(from, from + this.#next - this.#size);
      this.#all.update(part);
      this.#hash?.update(part);
      this.#size += part.length;
      from += part.length;
      if (this.#size === this.#next) this.#close();
    }
  }

  /** The digest of all, and those that `SourceRecord.pieces` has; nothing may follow. */
  finish(): { readonly all: Buffer; readonly pieces: Buffer } {
    if (this.#size <= PIECE_SIZE) {
      const all = this.#all.digest();
      return { all, pieces: this.#size > 0 ? all : EMPTY };
    }
    if (this.#size % PIECE_SIZE > 0) this.#close();
    return { all: this.#all.digest(), pieces: Buffer.concat(this.#digests) };
  }

  #close(): void {
    this.#digests.push((this.#hash ?? this.#all.copy()).digest());
    if (this.#next >= PIECE_SIZE) this.#hash = createHash("sha256");
    this.#next = endAfter(this.#next);
  }
}

const EMPTY = Buffer.alloc(0);

/** Where the next digest is due. */
function endAfter(end: number): number {
  return end === HEAD_SIZE ? PIECE_SIZE : end + PIECE_SIZE;
}

/** The homeserver sent other bytes than those that were scanned. */
export class ChangedMediaError extends Error {
  override readonly name = "ChangedMediaError";
}

/** Compares bytes, as they come, with those that were scanned. */
export class PieceCheck {
  readonly #record: SourceRecord;
  #hash = createHash("sha256");
  #seen = 0;
  #end: number;
  #digest = 0;

  constructor(record: SourceRecord) {
    this.#record = record;
    this.#end = record.size > PIECE_SIZE ? HEAD_SIZE : record.size;
  }

  /** Bytes until the next digest is due; 0 when there are no more. */
  get room(): number {
    return this.#end - this.#seen;
  }

  /**
   * @param part no longer than `room`, unless that is 0
   * @returns whether all so far is what was scanned
   * @throws ChangedMediaError for what differs, and for more bytes than were scanned.
   */
  push(part: Buffer): boolean {
    if (this.room === 0) throw new ChangedMediaError("there are more bytes than were scanned");
    this.#hash.update(part);
    this.#seen += part.length;
    if (this.room > 0) return false;
    const { pieces, size } = this.#record;
    const isHead = this.#end === HEAD_SIZE && size > PIECE_SIZE;
    const digest = (isHead ? this.#hash.copy() : this.#hash).digest();
    const at = this.#digest * DIGEST_SIZE;
    if (!digest.equals(pieces.subarray(at, at + DIGEST_SIZE))) {
      throw new ChangedMediaError(`the bytes up to ${this.#end} are not what was scanned`);
    }
    if (!isHead && this.#end < size) this.#hash = createHash("sha256");
    this.#digest += 1;
    this.#end = Math.min(endAfter(this.#end), size);
    return true;
  }

  /** Nothing more comes. @throws ChangedMediaError when there are fewer bytes than were scanned. */
  end(): void {
    if (this.room > 0) throw new ChangedMediaError("there are fewer bytes than were scanned");
  }
}

/** Shorter parts are copied: one of a byte takes as much as hundreds of them, and may be a view of something much larger. */
const SMALL = 4 * 1024;
/** Bytes of what they are copied to. */
const BLOCK = 16 * 1024;

/** The parts of a piece until it is whole, in about as much memory as they have bytes, however they came. */
class Parts {
  #parts: Buffer[] = [];
  #block = EMPTY;
  /** Of the block, what is in parts that are closed, and what is taken in all. No byte of it is written twice. */
  #closed = 0;
  #filled = 0;

  push(part: Buffer): void {
    if (part.length >= SMALL) {
      this.#close();
      this.#parts.push(part);
      return;
    }
    if (part.length > this.#block.length - this.#filled) {
      this.#close();
      this.#block = Buffer.allocUnsafeSlow(BLOCK);
      this.#closed = 0;
      this.#filled = 0;
    }
    this.#filled += part.copy(this.#block, this.#filled);
  }

  /** All of them; those of the next piece follow. */
  take(): Buffer[] {
    this.#close();
    const parts = this.#parts;
    this.#parts = [];
    return parts;
  }

  #close(): void {
    if (this.#filled > this.#closed) this.#parts.push(this.#block.subarray(this.#closed, this.#filled));
    this.#closed = this.#filled;
  }
}

/**
 * Yields the bytes in pieces, each only after its digest matched the record, so no byte leaves that was not scanned.
 * Holds at most one piece. @throws ChangedMediaError at the first piece that differs, or when there are more or fewer bytes.
 */
export async function* verifiedPieces(body: AsyncIterable<Buffer>, record: SourceRecord): AsyncGenerator<Buffer[]> {
  const check = new PieceCheck(record);
  const parts = new Parts();
  for await (const chunk of body) {
    for (const part of partsOf(chunk, check)) {
      parts.push(part);
      if (check.push(part)) yield parts.take();
    }
  }
  check.end();
}

/** Takes all of the bytes. None of them may leave before this returns. @throws as `verifiedPieces`; whatever `take` throws. */
export async function receiveVerified(
  body: AsyncIterable<Buffer>,
  record: SourceRecord,
  take: (chunk: Buffer) => Promise<void> | undefined,
): Promise<void> {
  const check = new PieceCheck(record);
  for await (const chunk of body) {
    for (const part of partsOf(chunk, check)) check.push(part);
    await take(chunk);
  }
  check.end();
}

/** The chunk, cut where pieces end. */
function* partsOf(chunk: Buffer, check: PieceCheck): Generator<Buffer> {
  for (let from = 0; from < chunk.length;) {
    const part = chunk.subarray(from, check.room === 0 ? undefined : from + check.room);
    from += part.length;
    yield part;
  }
}
