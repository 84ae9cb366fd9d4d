import { hash } from "node:crypto";

/** Of SHA-256: bytes of its blocks, and of what comes out. */
const BLOCK = 64;
const DIGEST = 32;
/** Bytes of the length before each part. */
const LENGTH = 4;

/**
 * HMAC-SHA-256 (RFC 2104) over a purpose and parts, texts in UTF-8. Each is preceded by its length (32 bits, big-endian), so no two lists of parts, and no
 * two purposes, are the same message.
 *
 * It is made of two hashes of SHA-256, as the RFC defines it, for a Hmac of Node's takes several times as long: an object is made for it, and collected.
 */
export class KeyedDigest {
  /** What the message, and what the hash of both, is hashed behind. */
  readonly #inner: Buffer;
  readonly #outer: Buffer;

  constructor(secret: Buffer) {
    const key = Buffer.alloc(BLOCK);
    (secret.length > BLOCK ? hash("sha256", secret, "buffer") : secret).copy(key);
    this.#inner = Buffer.from(key.map((byte) => byte ^ 0x36));
    this.#outer = Buffer.concat([key.map((byte) => byte ^ 0x5c)], BLOCK + DIGEST);
  }

  /** In base64url: 43 characters. */
  name(purpose: string, parts: readonly (string | Buffer)[]): string {
    return hash("sha256", this.#last(purpose, parts), "base64url");
  }

  /** 32 bytes. */
  bytes(purpose: string, parts: readonly (string | Buffer)[]): Buffer {
    return hash("sha256", this.#last(purpose, parts), "buffer");
  }

  /** What is hashed last. The next call overwrites it. */
  #last(purpose: string, parts: readonly (string | Buffer)[]): Buffer {
    const message = messageOf(this.#inner, [purpose, ...parts]);
    // A text of Latin-1 has the same bytes, and costs less than a buffer.
    this.#outer.write(hash("sha256", message, "latin1"), BLOCK, "latin1");
    return this.#outer;
  }
}

function messageOf(start: Buffer, parts: readonly (string | Buffer)[]): Buffer {
  const message = Buffer.allocUnsafe(parts.reduce((sum, part) => sum + LENGTH + Buffer.byteLength(part), start.length));
  let at = start.copy(message);
  for (const part of parts) {
    const from = at + LENGTH;
    const length = typeof part === "string" ? message.write(part, from) : part.copy(message, from);
    message.writeUInt32BE(length, at);
    at = from + length;
  }
  return message;
}
