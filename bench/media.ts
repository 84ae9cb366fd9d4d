/**
 * The media of the benchmark. A media ID says how many bytes there are and which they are, so homeserver and load generator tell each other nothing: one
 * block of random bytes over and over, and at the end the ID itself. No two media are the same to a scanner that remembers hashes, and the hash of each
 * costs no more than its last bytes.
 */
import { type Hash, createCipheriv, createHash } from "node:crypto";

/** The server name in all mxc URIs. */
export const SERVER_NAME = "bench";

/** Where media is uploaded to, at the gateway and at the homeserver. */
export const UPLOAD_PATH = "/_matrix/media/v3/upload";

/** Bytes at the end of a media that are its own; there is no smaller one. */
export const TAIL_SIZE = 32;

const BLOCK_SIZE = 4 * 1024 * 1024;
/** Any 32 and 16 bytes: they have to be the same in every process. */
const SEED = { key: Buffer.alloc(32, 1), iv: Buffer.alloc(16, 1) };

/** @param size bytes, `TAIL_SIZE` at least; with `series` and `number` in decimal at most 30 characters */
export function mediaId(size: number, series: string, number: number): string {
  return `${size}-${series}-${number}`;
}

/** Bytes of the media with this ID; undefined for an ID that names none. */
export function sizeOf(id: string): number | undefined {
  const size = Number(/^([1-9]\d{0,10})-[\w-]+$/.exec(id)?.[1]);
  return size >= TAIL_SIZE && id.length <= TAIL_SIZE ? size : undefined;
}

/** The ID of the media with these last bytes. */
export function idOf(tail: Buffer): string {
  return tail.toString("latin1").replace(/\.+$/, "");
}

/** The last bytes of the media with this ID. */
export function tailOf(id: string): Buffer {
  return Buffer.from(id.padEnd(TAIL_SIZE, "."), "latin1");
}

let block: Buffer | undefined;

/** All bytes of a media of this size but the tail. Parts are views: they must not be changed. */
export function* bodyOf(size: number): Generator<Buffer> {
  block ??= createCipheriv("aes-256-ctr", SEED.key, SEED.iv).update(Buffer.alloc(BLOCK_SIZE));
  for (let left = size - TAIL_SIZE; left > 0; left -= BLOCK_SIZE) yield block.subarray(0, left);
}

/** SHA-256 of media of one size. */
export class MediaHashes {
  readonly #body: Hash;

  constructor(size: number) {
    this.#body = createHash("sha256");
    for (const part of bodyOf(size)) this.#body.update(part);
  }

  of(id: string): Buffer {
    return this.#body.copy().update(tailOf(id)).digest();
  }
}
