/**
 * Records on their way through Redis. Whoever can read or write there can neither learn what was seen nor make a verdict: each value is encrypted and
 * authenticated together with the key it stands under and the time it expires.
 *
 * A value is: version (1 byte), expiry (8 bytes, ms since the epoch, big-endian), nonce (12), AES-256-GCM ciphertext of JSON, tag (16). The AES key is
 * derived from the secret and the record's key, so random nonces never come near their limit.
 */
import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { z } from "zod";
import { KeyedDigest } from "./keyed-digest.ts";
import { DIGEST_SIZE, type SourceRecord, type VerdictRecord, digestCount } from "./store.ts";

const VERSION = 1;
const HEAD_LENGTH = 9;
const NONCE_LENGTH = 12;
const TAG_LENGTH = 16;
/** Bytes of the longest value that is written or believed: the pieces of a file of 24 GiB. */
export const MAX_VALUE_BYTES = 1024 * 1024;

export class RecordCodec {
  readonly #digest: KeyedDigest;

  constructor(secret: Buffer) {
    this.#digest = new KeyedDigest(secret);
  }

  /** Bytes of what `seal` makes of this record. */
  static sealedLength(record: unknown): number {
    return HEAD_LENGTH + NONCE_LENGTH + Buffer.byteLength(JSON.stringify(record)) + TAG_LENGTH;
  }

  /** Bytes that only `open` with the same secret and key reads. */
  seal(key: string, record: unknown, expiresAt: number): Buffer {
    const head = Buffer.alloc(HEAD_LENGTH);
    head.writeUInt8(VERSION);
    head.writeBigUInt64BE(BigInt(expiresAt), 1);
    const nonce = randomBytes(NONCE_LENGTH);
    const cipher = createCipheriv("aes-256-gcm", this.#keyOf(key), nonce, { authTagLength: TAG_LENGTH }).setAAD(head);
    return Buffer.concat([head, nonce, cipher.update(JSON.stringify(record)), cipher.final(), cipher.getAuthTag()]);
  }

  /** What was sealed under this key, and when it expires (ms since the epoch); undefined for anything else. */
  open(key: string, value: Buffer): { readonly content: unknown; readonly expiresAt: number } | undefined {
    if (value.length < HEAD_LENGTH + NONCE_LENGTH + TAG_LENGTH || value.length > MAX_VALUE_BYTES || value[0] !== VERSION) return undefined;
    const head = value.subarray(0, HEAD_LENGTH);
    const nonce = value.subarray(HEAD_LENGTH, HEAD_LENGTH + NONCE_LENGTH);
    const ciphertext = value.subarray(HEAD_LENGTH + NONCE_LENGTH, -TAG_LENGTH);
    try {
      const decipher = createDecipheriv("aes-256-gcm", this.#keyOf(key), nonce, { authTagLength: TAG_LENGTH })
        .setAAD(head)
        .setAuthTag(value.subarray(-TAG_LENGTH));
      const content: unknown = JSON.parse(Buffer.concat([decipher.update(ciphertext), decipher.final()]).toString());
      return { content, expiresAt: Number(head.readBigUInt64BE(1)) };
    } catch {
      return undefined;
    }
  }

  #keyOf(key: string): Buffer {
    return this.#digest.bytes("record encryption", [key]);
  }
}

const text = z.string().max(4096);
const stamps = z.record(text, z.strictObject({ tag: text, at: z.number() }));
const verdictSchema = z.discriminatedUnion("outcome", [
  z.strictObject({ outcome: z.literal("clean"), stamps }),
  z.strictObject({ outcome: z.literal("infected"), stamps, threat: text, scanner: text }),
  z.strictObject({ outcome: z.literal("type_forbidden"), mime: text }),
]);

const keyed = z.string().regex(/^[\w-]{43}$/);
const sourceSchema = z
  .strictObject({
    content: keyed,
    digest: keyed,
    size: z.int().min(0),
    pieces: z.base64(),
    verdict: z.strictObject({ record: verdictSchema, expiresAt: z.int().min(0) }).exactOptional(),
  })
  .transform((record): SourceRecord => ({ ...record, pieces: Buffer.from(record.pieces, "base64") }))
  .refine((record) => record.pieces.length === DIGEST_SIZE * digestCount(record.size));

/** A source record as JSON can say it. */
export function sourceToJson(record: SourceRecord): unknown {
  return { ...record, pieces: record.pieces.toString("base64") };
}

/** Undefined when it is not a whole and sound record. */
export function sourceFromJson(content: unknown): SourceRecord | undefined {
  return sourceSchema.safeParse(content).data;
}

/** Undefined when it is not a whole and sound record. */
export function verdictFromJson(content: unknown): VerdictRecord | undefined {
  return verdictSchema.safeParse(content).data;
}
