/** One pass over the bytes as they come: what they hash to, and what they decrypt to. */
import { createHash, type Hash } from "node:crypto";
import { type Attachment, assertCounterRange, createAttachmentDecryptor } from "../crypto/attachment.ts";
import { GatewayError } from "../errors.ts";
import { free } from "../media/free.ts";
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
  #size = 0;
  readonly #attachment: Attachment | undefined;
  readonly #decryptor: ReturnType<typeof createAttachmentDecryptor> | undefined;
  /** Of the decrypted bytes, where they are not those that come. */
  readonly #content: Hash | undefined;
  readonly #pieces = new PieceHasher();

  constructor(attachment: Attachment | undefined) {
    this.#attachment = attachment;
    if (attachment !== undefined) {
      this.#decryptor = createAttachmentDecryptor(attachment);
      this.#content = createHash("sha256");
    }
  }

  get size(): number {
    return this.#size;
  }

  update(chunk: Buffer): void {
    this.#size += chunk.length;
    this.#pieces.update(chunk);
    if (this.#decryptor !== undefined) {
      const plain = this.#decryptor.update(chunk);
      this.#content?.update(plain);
      free(plain);
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
        throw new GatewayError("failed_to_decrypt", { detail: "the ciphertext does not have the SHA-256 that the request names" });
      }
    }
    return { size: this.#size, sha256: this.#content?.digest() ?? all, pieces };
  }
}
