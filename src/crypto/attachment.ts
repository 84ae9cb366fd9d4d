/** Encrypted attachments: https://spec.matrix.org/v1.19/client-server-api/#sending-encrypted-attachments */
import { createDecipheriv } from "node:crypto";
import { GatewayError } from "../errors.ts";
import { decodeBase64 } from "./base64.ts";

export interface Attachment {
  /** AES-256 key, 32 bytes. */
  readonly key: Buffer;
  /** The first counter block, 16 bytes. */
  readonly iv: Buffer;
  /** SHA-256 of the ciphertext, 32 bytes. */
  readonly sha256: Buffer;
}

export interface AttachmentDecryptor {
  /**
   * The plaintext of the next piece of ciphertext, of the same length, in memory of its own; pieces may be cut anywhere.
   * @throws GatewayError `failed_to_decrypt` once the pieces run over the counter's range (see `assertCounterRange`).
   */
  update(chunk: Uint8Array): Buffer<ArrayBuffer>;
}

const BLOCK = 16;
const KEY_SIZE = 32;
const HASH_SIZE = 32;
const COUNTER_END = 2n ** 64n;
const REQUIRED_KEY_OPS = ["encrypt", "decrypt"];

/**
 * Reads an `EncryptedFile` as events carry it. Keys that it does not name are ignored: clients copy them from the event (`mimetype`).
 * @returns `url` as it came, for `media/mxc` to check, and the attachment's key, IV and hash.
 * @throws GatewayError `malformed_request` for another shape, version or algorithm; `failed_to_decrypt` when key, IV or hash are not the
 *   base64 of 32, 16 and 32 bytes.
 */
export function parseEncryptedFile(value: unknown): { url: string; attachment: Attachment } {
  const file = objectAt(value, "file");
  const key = objectAt(file["key"], "file.key");
  const hashes = objectAt(file["hashes"], "file.hashes");
  if (file["v"] !== "v2") throw malformed("file.v");
  if (key["alg"] !== "A256CTR") throw malformed("file.key.alg");
  if (key["kty"] !== "oct") throw malformed("file.key.kty");
  if (key["ext"] !== true) throw malformed("file.key.ext");
  const operations: unknown = key["key_ops"];
  if (!Array.isArray(operations) || !operations.every((name) => typeof name === "string")) throw malformed("file.key.key_ops");
  if (!REQUIRED_KEY_OPS.every((name) => operations.includes(name))) throw malformed("file.key.key_ops");
  // Every shape is checked before any content, so that a file that is wrong in both ways is always answered in one.
  const url = stringAt(file["url"], "file.url");
  const k = stringAt(key["k"], "file.key.k");
  const iv = stringAt(file["iv"], "file.iv");
  const sha256 = stringAt(hashes["sha256"], "file.hashes.sha256");
  return {
    url,
    attachment: {
      key: bytesOf(k, KEY_SIZE, "file.key.k"),
      iv: bytesOf(iv, BLOCK, "file.iv"),
      sha256: bytesOf(sha256, HASH_SIZE, "file.hashes.sha256"),
    },
  };
}

/**
 * Refuses an attachment of `size` bytes whose block counter would leave the low 64 bits of the IV: WebCrypto clients then start again at
 * zero (`length: 64`), OpenSSL carries into the upper half, and the scanner would see another plaintext than the client.
 * Honest clients start the counter at zero.
 * @throws GatewayError `failed_to_decrypt`
 */
export function assertCounterRange(attachment: Attachment, size: number): void {
  const blocks = BigInt(Math.ceil(size / BLOCK));
  if (firstCounter(attachment) + blocks > COUNTER_END) throw counterOverflow();
}

/** Decrypts one attachment from its first byte, AES-256-CTR. It believes nothing: the caller compares the ciphertext's SHA-256. */
export function createAttachmentDecryptor(attachment: Attachment): AttachmentDecryptor {
  const cipher = createDecipheriv("aes-256-ctr", attachment.key, attachment.iv);
  // Beyond 2^53 bytes the limit is rounded, which no file reaches.
  const limit = Number((COUNTER_END - firstCounter(attachment)) * BigInt(BLOCK));
  let done = 0;
  return {
    update(chunk) {
      done += chunk.byteLength;
      if (done > limit) throw counterOverflow();
      return cipher.update(chunk);
    },
  };
}

function firstCounter(attachment: Attachment): bigint {
  return attachment.iv.readBigUInt64BE(8);
}

function counterOverflow(): GatewayError {
  return new GatewayError("failed_to_decrypt", { detail: "the IV's 64-bit block counter would overflow" });
}

function objectAt(value: unknown, name: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw malformed(name);
  return value as Record<string, unknown>;
}

function stringAt(value: unknown, name: string): string {
  if (typeof value !== "string") throw malformed(name);
  return value;
}

function bytesOf(text: string, size: number, name: string): Buffer {
  const bytes = decodeBase64(text, size);
  if (bytes === undefined) throw new GatewayError("failed_to_decrypt", { detail: `${name} is not the base64 of ${size} bytes` });
  return bytes;
}

function malformed(name: string): GatewayError {
  return new GatewayError("malformed_request", { detail: `${name} is missing or not what it must be` });
}
