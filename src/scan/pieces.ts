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
    if (this.#filled > 0) this.#close();
    return { all: this.#all.digest(), pieces: Buffer.concat(this.#digests) };
  }

  #close(): void {
    this.#digests.push((this.#hash ?? this.#all.copy()).digest());
    this.#hash = createHash("sha256");
    this.#filled = 0;
  }
}

/** The homeserver sent other bytes than those that were scanned. */
export class ChangedMediaError extends Error {
  override readonly name = "ChangedMediaError";
}

const DIGEST_SIZE = 32;

/**
 * Yields the bytes in pieces, each only after its digest matched the record, so no byte leaves that was not scanned.
 * Holds at most one piece. @throws ChangedMediaError at the first piece that differs, or when there are more or fewer bytes.
 */
export async function* verifiedPieces(body: AsyncIterable<Buffer>, record: SourceRecord): AsyncGenerator<Buffer[]> {
  let left = record.size;
  let piece: Buffer[] = [];
  let filled = 0;
  let index = 0;
  for await (const chunk of body) {
    for (let from = 0; from < chunk.length;) {
      const wanted = Math.min(PIECE_SIZE, left) - filled;
      if (wanted === 0) throw new ChangedMediaError("there are more bytes than were scanned");
      const part = chunk.subarray(from, from + wanted);
      piece.push(part);
      filled += part.length;
      from += part.length;
      if (filled === Math.min(PIECE_SIZE, left)) {
        assertPiece(piece, record, index);
        yield piece;
        left -= filled;
        index += 1;
        filled = 0;
        piece = [];
      }
    }
  }
  if (left > 0) throw new ChangedMediaError("there are fewer bytes than were scanned");
}

function assertPiece(piece: readonly Buffer[], record: SourceRecord, index: number): void {
  const hash = createHash("sha256");
  for (const part of piece) hash.update(part);
  if (!hash.digest().equals(record.pieces.subarray(index * DIGEST_SIZE, (index + 1) * DIGEST_SIZE))) {
    throw new ChangedMediaError(`piece ${index} is not what was scanned`);
  }
}
