/** Names under which verdicts are kept: who reads them, without the secret, learns neither what was seen nor where it came from. */
import { KeyedDigest } from "./keyed-digest.ts";

/** A shorter secret could be found by trying. */
export const MIN_SECRET_BYTES = 16;

/** @throws RangeError when the secret is too short to keep anything secret. */
export function assertSecret(secret: Buffer): void {
  if (secret.length < MIN_SECRET_BYTES) throw new RangeError(`the secret must have at least ${MIN_SECRET_BYTES} bytes`);
}

/**
 * Every key is a keyed digest in base64url, 43 characters. Instances that share verdicts share the secret. Content whose verdict holds for one
 * `audience` alone has keys of its own, and so has a source within a `scope` (policy and audience); empty, as they are by default, they are everybody's.
 */
export class VerdictKeys {
  readonly #digest: KeyedDigest;

  /** @throws RangeError when the secret has less than `MIN_SECRET_BYTES`. */
  constructor(secret: Buffer) {
    assertSecret(secret);
    this.#digest = new KeyedDigest(secret);
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
    if (scope === "") return this.#digest.name(purpose, parts);
    return this.#digest.name(`${purpose} for an audience`, [scope, ...parts]);
  }
}
