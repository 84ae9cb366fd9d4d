import { type Hash, createHash } from "node:crypto";

/** What came back: its length, and the SHA-256 of as much as was sent. No byte of it is kept. */
export class ReturnedBody {
  /** Made for the first byte: most answers bring none. */
  #hash: Hash | undefined;
  readonly #sent: number;
  #size = 0;

  /** @param sent bytes of the body that was sent */
  constructor(sent: number) {
    this.#sent = sent;
  }

  get size(): number {
    return this.#size;
  }

  push(bytes: Uint8Array): void {
    const left = this.#sent - this.#size;
    this.#size += bytes.length;
    if (left > 0) (this.#hash ??= createHash("sha256")).update(bytes.subarray(0, left));
  }

  /** Of all of it, or of as many bytes as were sent, if it is longer. To be asked once, at its end. */
  digest(): Buffer {
    return (this.#hash ?? createHash("sha256")).digest();
  }
}

/**
 * Whether `body` begins with the `size` bytes that have this SHA-256. Reads no further than that, and ends the body then.
 * @throws whatever the body throws; the signal's reason.
 */
export async function beginsWith(body: AsyncIterable<Uint8Array>, size: number, sha256: Buffer, signal: AbortSignal): Promise<boolean> {
  if (size === 0) return true;
  const hash = createHash("sha256");
  let left = size;
  for await (const bytes of body) {
    signal.throwIfAborted();
    hash.update(bytes.subarray(0, left));
    left -= Math.min(left, bytes.length);
    if (left === 0) return hash.digest().equals(sha256);
  }
  return false;
}
