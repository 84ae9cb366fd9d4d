/** Names under which verdicts are kept: who reads them, without the secret, learns neither what was seen nor where it came from. */
import { createHmac } from "node:crypto";

/** A shorter secret could be found by trying. */
export const MIN_SECRET_BYTES = 16;

/**
 * HMAC-SHA-256 over a purpose and parts. Each is preceded by its length, so no two lists of parts, and no two purposes, are the same message.
 */
export function keyedDigest(secret: Buffer, purpose: string, parts: readonly (string | Buffer)[]): Buffer {
  const pieces: Buffer[] = [];
  for (const part of [purpose, ...parts]) {
    const bytes = typeof part === "string" ? Buffer.from(part) : part;
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    pieces.push(length, bytes);
  }
  return createHmac("sha256", secret).update(Buffer.concat(pieces)).digest();
}

/** @throws RangeError when the secret is too short to keep anything secret. */
export function assertSecret(secret: Buffer): void {
  if (secret.length < MIN_SECRET_BYTES) throw new RangeError(`the secret must have at least ${MIN_SECRET_BYTES} bytes`);
}

/**
 * Every key is a keyed digest in base64url, 43 characters. Instances that share verdicts share the secret. Verdicts that hold for one `audience`
 * alone have keys of their own; the empty one is everybody.
 */
export class VerdictKeys {
  readonly #secret: Buffer;

  /** @throws RangeError when the secret has less than `MIN_SECRET_BYTES`. */
  constructor(secret: Buffer) {
    assertSecret(secret);
    this.#secret = secret;
  }

  /** Plain media as it was asked for; `variant` says which of its forms (download, or a thumbnail and its parameters). */
  plainSource(mxc: { readonly serverName: string; readonly mediaId: string }, variant: readonly string[], audience = ""): string {
    return this.#key("plain source", [mxc.serverName, mxc.mediaId, ...variant], audience);
  }

  /** Encrypted media: SHA-256 of the ciphertext, key and IV. All three, for the bytes that come out depend on each. */
  encryptedSource(attachment: { readonly sha256: Buffer; readonly key: Buffer; readonly iv: Buffer }, audience = ""): string {
    return this.#key("encrypted source", [attachment.sha256, attachment.key, attachment.iv], audience);
  }

  /** Decrypted bytes, by their SHA-256, under a policy: a verdict holds for these bytes under this policy alone. */
  content(sha256: Buffer, policy: string, audience = ""): string {
    return this.#key("content", [sha256, policy], audience);
  }

  /** Decrypted bytes alone, by their SHA-256: what operators block or allow, whatever the policy. */
  digest(sha256: Buffer): string {
    return this.#key("digest", [sha256], "");
  }

  /** One media's way from one source: who names other media beside the hash of known media goes alone. */
  flight(source: string, mxc: { readonly serverName: string; readonly mediaId: string }): string {
    return this.#key("flight", [source, mxc.serverName, mxc.mediaId], "");
  }

  #key(purpose: string, parts: readonly (string | Buffer)[], audience: string): string {
    const digest =
      audience === ""
        ? keyedDigest(this.#secret, purpose, parts)
        : keyedDigest(this.#secret, `${purpose} for an audience`, [audience, ...parts]);
    return digest.toString("base64url");
  }
}
