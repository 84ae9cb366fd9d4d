/** Digests of pieces: made while media arrives for the first time, checked whenever it passes again. */
import { createHash, type Hash } from "node:crypto";
import { PIECE_SIZE, type SourceRecord } from "../verdicts/store.ts";

/** SHA-256 of all bytes, and of each piece of `PIECE_SIZE` bytes, however they are cut when they come; the first piece costs no pass of its own. */
export class PieceHasher {
  readonly #all = createHash("sha256");
  /** Of a piece behind the first one. */
  #hash: Hash | undefined;
  #filled = 0;
  readonly #digests: Buffer[] = [];

  update(chunk: Buffer): void {
    for (let from = 0; from < chunk.length;) {
      const part = chunk.subarray(from, from + PIECE_SIZE - this.#filled);
      this.#all.update(part);
      this.#hash?.update(part);
      this.#filled += part.length;
      from += part.length;
      if (this.#filled === PIECE_SIZE) this.#close();
    }
  }

  /** The digest of all, and those of the pieces, the last one included; nothing may follow. */
  finish(): { readonly all: Buffer; readonly pieces: Buffer } {
    if (this.#digests.length === 0) {
      const all = this.#all.digest();
      return { all, pieces: this.#filled > 0 ? all : EMPTY };
    }
    if (this.#filled > 0) this.#close();
    return { all: this.#all.digest(), pieces: Buffer.concat(this.#digests) };
  }

  #close(): void {
    this.#digests.push((this.#hash ?? this.#all.copy()).digest());
    this.#hash = createHash("sha256");
    this.#filled = 0;
  }
}

const EMPTY = Buffer.alloc(0);

/** The homeserver sent other bytes than those that were scanned. */
export class ChangedMediaError extends Error {
  override readonly name = "ChangedMediaError";
}

const DIGEST_SIZE = 32;

/** Compares bytes, as they come, with those that were scanned. */
export class PieceCheck {
  readonly #record: SourceRecord;
  #hash = createHash("sha256");
  /** Bytes of the pieces before this one, and of this one. */
  #before = 0;
  #filled = 0;

  constructor(record: SourceRecord) {
    this.#record = record;
  }

  /** Bytes until the piece ends; 0 when there are no more. */
  get room(): number {
    return Math.min(PIECE_SIZE, this.#record.size - this.#before) - this.#filled;
  }

  /**
   * @param part no longer than `room`, unless that is 0
   * @returns whether a piece ends with it, which then is what was scanned
   * @throws ChangedMediaError for a piece that differs, and for more bytes than were scanned.
   */
  push(part: Buffer): boolean {
    if (this.room === 0) throw new ChangedMediaError("there are more bytes than were scanned");
    this.#hash.update(part);
    this.#filled += part.length;
    if (this.room > 0) return false;
    const at = (this.#before / PIECE_SIZE) * DIGEST_SIZE;
    if (!this.#hash.digest().equals(this.#record.pieces.subarray(at, at + DIGEST_SIZE))) {
      throw new ChangedMediaError(`piece ${this.#before / PIECE_SIZE} is not what was scanned`);
    }
    this.#before += this.#filled;
    this.#filled = 0;
    if (this.room > 0) this.#hash = createHash("sha256");
    return true;
  }

  /** Nothing more comes. @throws ChangedMediaError when there are fewer bytes than were scanned. */
  end(): void {
    if (this.room > 0) throw new ChangedMediaError("there are fewer bytes than were scanned");
  }
}

/**
 * Yields the bytes in pieces, each only after its digest matched the record, so no byte leaves that was not scanned.
 * Holds at most one piece. @throws ChangedMediaError at the first piece that differs, or when there are more or fewer bytes.
 */
export async function* verifiedPieces(body: AsyncIterable<Buffer>, record: SourceRecord): AsyncGenerator<Buffer[]> {
  const check = new PieceCheck(record);
  let piece: Buffer[] = [];
  for await (const chunk of body) {
    for (const part of partsOf(chunk, check)) {
      piece.push(part);
      if (!check.push(part)) continue;
      yield piece;
      piece = [];
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
