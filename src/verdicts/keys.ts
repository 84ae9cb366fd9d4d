/** Names under which verdicts are kept: who reads them, without the secret, learns neither what was seen nor where it came from. */
import { type KeyObject, createHmac, createSecretKey } from "node:crypto";

/** A shorter secret could be found by trying. */
export const MIN_SECRET_BYTES = 16;

/** Bytes of the length before each part. */
const LENGTH = 4;

/**
 * HMAC-SHA-256 over a purpose and parts, texts in UTF-8. Each is preceded by its length (32 bits, big-endian), so no two lists of parts, and no two purposes, are the same message.
 */
export function keyedDigest(secret: Buffer | KeyObject, purpose: string, parts: readonly (string | Buffer)[]): Buffer {
  return createHmac("sha256", secret)
    .update(messageOf([purpose, ...parts]))
    .digest();
}

function messageOf(parts: readonly (string | Buffer)[]): Buffer {
  const message = Buffer.allocUnsafe(parts.reduce((sum, part) => sum + LENGTH + Buffer.byteLength(part), 0));
  let at = 0;
  for (const part of parts) {
    const from = at + LENGTH;
    const length = typeof part === "string" ? message.write(part, from) : part.copy(message, from);
    message.writeUInt32BE(length, at);
    at = from + length;
  }
  return message;
}

/** @throws RangeError when the secret is too short to keep anything secret. */
export function assertSecret(secret: Buffer): void {
  if (secret.length < MIN_SECRET_BYTES) throw new RangeError(`the secret must have at least ${MIN_SECRET_BYTES} bytes`);
}

/**
 * Every key is a keyed digest in base64url, 43 characters. Instances that share verdicts share the secret. Content whose verdict holds for one
 * `audience` alone has keys of its own, and so has a source within a `scope` (policy and audience); empty, as they are by default, they are everybody's.
 */
export class VerdictKeys {
  /** Made once: a key that comes as bytes is copied and checked each time. */
  readonly #secret: KeyObject;

  /** @throws RangeError when the secret has less than `MIN_SECRET_BYTES`. */
  constructor(secret: Buffer) {
    assertSecret(secret);
    this.#secret = createSecretKey(secret);
  }

  /** Plain media as it was asked for; `variant` says which of its forms (download, or a thumbnail and its parameters). */
  plainSource(mxc: { readonly serverName: string; readonly mediaId: string }, variant: readonly string[], scope = ""): string {
    return this.#key("plain source", [mxc.serverName, mxc.mediaId, ...variant], scope);
  }

  /** Encrypted media: SHA-256 of the ciphertext, key and IV. All three, for the bytes that come out depend on each. */
  encryptedSource(attachment: { readonly sha256: Buffer; readonly key: Buffer; readonly iv: Buffer }, scope = ""): string {
    return this.#key("encrypted source", [attachment.sha256, attachment.key, attachment.iv], scope);
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

  #key(purpose: string, parts: readonly (string | Buffer)[], scope: string): string {
    const digest =
      scope === "" ? keyedDigest(this.#secret, purpose, parts) : keyedDigest(this.#secret, `${purpose} for an audience`, [scope, ...parts]);
    return digest.toString("base64url");
  }
}
