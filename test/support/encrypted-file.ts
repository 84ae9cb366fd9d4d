/** Attachments as a client makes them (Matrix Client-Server API, "Sending encrypted attachments"), by WebCrypto. */
import { createHash, randomBytes, webcrypto } from "node:crypto";

export interface EncryptedFile {
  readonly ciphertext: Buffer;
  /** The `file` object of the event, for media at this mxc URI. */
  readonly file: (mxc: string) => Record<string, unknown>;
}

export async function encryptFile(plaintext: Uint8Array, key = randomBytes(32)): Promise<EncryptedFile> {
  const iv = Buffer.concat([randomBytes(8), Buffer.alloc(8)]);
  const imported = await webcrypto.subtle.importKey("raw", Uint8Array.from(key), "AES-CTR", false, ["encrypt"]);
  const bytes = await webcrypto.subtle.encrypt(
    { name: "AES-CTR", counter: Uint8Array.from(iv), length: 64 },
    imported,
    Uint8Array.from(plaintext),
  );
  const ciphertext = Buffer.from(bytes);
  return {
    ciphertext,
    file: (mxc) => ({
      v: "v2",
      key: { alg: "A256CTR", ext: true, k: key.toString("base64url"), key_ops: ["encrypt", "decrypt"], kty: "oct" },
      iv: unpadded(iv),
      hashes: { sha256: unpadded(createHash("sha256").update(ciphertext).digest()) },
      url: `mxc://${mxc}`,
    }),
  };
}

function unpadded(bytes: Buffer): string {
  return bytes.toString("base64").replace(/=+$/u, "");
}
