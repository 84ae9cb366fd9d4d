/** One pass over the bytes as they come: what they hash to, what they decrypt to, how they begin. */
import { createHash, type Hash } from "node:crypto";
import { type Attachment, assertCounterRange, createAttachmentDecryptor } from "../crypto/attachment.ts";
import { GatewayError } from "../errors.ts";
import { PREFIX_SIZE } from "../media/mime.ts";
import { PieceHasher } from "./pieces.ts";

/** What is known once the last byte is there. */
export interface Arrival {
  /** Bytes as they came; decryption does not change their number. */
  readonly size: number;
  /** SHA-256 of the decrypted bytes. */
  readonly sha256: Buffer;
  /** As in `SourceRecord.pieces`. */
  readonly pieces: Buffer;
}

export class Intake {
  /** The first `PREFIX_SIZE` decrypted bytes, or all there are; rejects when the bytes end in an error before that. */
  readonly prefix: Promise<Buffer>;
  #size = 0;
  readonly #attachment: Attachment | undefined;
  readonly #decryptor: ReturnType<typeof createAttachmentDecryptor> | undefined;
  /** Of the decrypted bytes, where they are not those that come. */
  readonly #content: Hash | undefined;
  readonly #pieces = new PieceHasher();
  readonly #head: Buffer[] = [];
  #headSize = 0;
  #resolvePrefix: (prefix: Buffer) => void;
  #rejectPrefix: (error: Error) => void;

  constructor(attachment: Attachment | undefined) {
    this.#attachment = attachment;
    if (attachment !== undefined) {
      this.#decryptor = createAttachmentDecryptor(attachment);
      this.#content = createHash("sha256");
    }
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    this.prefix = promise;
    this.#resolvePrefix = resolve;
    this.#rejectPrefix = reject;
    // It is awaited only where somebody needs the type.
    promise.catch(() => undefined);
  }

  get size(): number {
    return this.#size;
  }

  update(chunk: Buffer): void {
    this.#size += chunk.length;
    this.#pieces.update(chunk);
    const content = this.#decryptor?.update(chunk) ?? chunk;
    this.#content?.update(content);
    if (this.#headSize < PREFIX_SIZE) {
      // Copied, because the chunk may be a slice of something large that must not live on.
      const part = Buffer.from(content.subarray(0, PREFIX_SIZE - this.#headSize));
      this.#head.push(part);
      this.#headSize += part.length;
      if (this.#headSize === PREFIX_SIZE) this.#resolvePrefix(Buffer.concat(this.#head));
    }
  }

  /**
   * The last byte has come.
   * @throws GatewayError `failed_to_decrypt` when the bytes are not those that the attachment's hash names, or its counter would overflow.
   */
  finish(): Arrival {
    const { all, pieces } = this.#pieces.finish();
    if (this.#attachment !== undefined) {
      assertCounterRange(this.#attachment, this.#size);
      if (!all.equals(this.#attachment.sha256)) {
        const error = new GatewayError("failed_to_decrypt", { detail: "the ciphertext does not have the SHA-256 that the request names" });
        this.#rejectPrefix(error);
        throw error;
      }
    }
    this.#resolvePrefix(Buffer.concat(this.#head));
    return { size: this.#size, sha256: this.#content?.digest() ?? all, pieces };
  }

  fail(error: Error): void {
    this.#rejectPrefix(error);
  }
}
