/**
 * PkDecryption of libolm, by Node's crypto: its AES takes the same time whatever the data, which that of libolm, no longer maintained, does not; and it
 * takes a third of the time. X25519 (RFC 7748), HKDF-SHA-256 (RFC 5869), AES-256-CBC with the padding of PKCS #7 (RFC 5652, 6.3), and the first 8 bytes of
 * an HMAC-SHA-256 that is computed over an empty message, as libolm and vodozemac do.
 */
import { createDecipheriv, createHmac, createPrivateKey, createPublicKey, diffieHellman, hkdfSync, timingSafeEqual } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { encodeBase64 } from "./base64.ts";

/** Bytes. */
export const CIPHER_BLOCK = 16;
export const MAC_SIZE = 8;
export const EPHEMERAL_SIZE = 32;

export interface PkMessage {
  /** Whole blocks. */
  readonly ciphertext: Buffer;
  /** `MAC_SIZE` bytes. */
  readonly mac: Buffer;
  /** The sender's public key: `EPHEMERAL_SIZE` bytes. */
  readonly ephemeral: Buffer;
}

const AES_KEY_SIZE = 32;
const MAC_KEY_SIZE = 32;
const IV_SIZE = 16;
/** What stands before the 32 bytes of a key in PKCS #8 (RFC 5958) and in SubjectPublicKeyInfo (RFC 8410). */
const PKCS8 = Buffer.from("302e020100300506032b656e04220420", "hex");
const SPKI = Buffer.from("302a300506032b656e032100", "hex");

export class PkDecryption {
  /** In unpadded base64. */
  readonly publicKey: string;
  readonly #key: KeyObject;

  /** @param privateKey 32 bytes, which are not kept */
  constructor(privateKey: Uint8Array) {
    const der = Buffer.concat([PKCS8, privateKey]);
    this.#key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
    der.fill(0);
    this.publicKey = encodeBase64(createPublicKey(this.#key).export({ format: "der", type: "spki" }).subarray(SPKI.length));
  }

  /** The plaintext with its padding, whatever that is. Undefined: the MAC does not fit, or the sender's key is one that agrees on zeros with every other. */
  decrypt({ ciphertext, mac, ephemeral }: PkMessage): Buffer | undefined {
    const shared = this.#agree(ephemeral);
    if (shared === undefined) return undefined;
    const derived = Buffer.from(hkdfSync("sha256", shared, "", "", AES_KEY_SIZE + MAC_KEY_SIZE + IV_SIZE));
    const macKey = derived.subarray(AES_KEY_SIZE, AES_KEY_SIZE + MAC_KEY_SIZE);
    if (!timingSafeEqual(createHmac("sha256", macKey).digest().subarray(0, MAC_SIZE), mac)) return undefined;
    const decipher = createDecipheriv("aes-256-cbc", derived.subarray(0, AES_KEY_SIZE), derived.subarray(-IV_SIZE)).setAutoPadding(false);
    return Buffer.concat([decipher.update(ciphertext), decipher.final()]);
  }

  #agree(ephemeral: Buffer): Buffer | undefined {
    const publicKey = createPublicKey({ key: Buffer.concat([SPKI, ephemeral]), format: "der", type: "spki" });
    try {
      return diffieHellman({ privateKey: this.#key, publicKey });
    } catch {
      return undefined;
    }
  }
}
