/** Encrypted attachments as a client makes and reads them: https://spec.matrix.org/v1.19/client-server-api/#sending-encrypted-attachments */
import { createHash, randomBytes, webcrypto } from "node:crypto";

/** What a message's `file` holds. */
export interface EncryptedFile {
  readonly v: "v2";
  readonly url: string;
  readonly key: webcrypto.JsonWebKey;
  readonly iv: string;
  readonly hashes: { readonly sha256: string };
}

const COUNTER_BITS = 64;

export async function encryptAttachment(plaintext: Uint8Array, url: string): Promise<{ file: EncryptedFile; ciphertext: Buffer }> {
  const key = await webcrypto.subtle.generateKey({ name: "AES-CTR", length: 256 }, true, ["encrypt", "decrypt"]);
  // The lower half is the block counter, which starts at zero.
  const iv = Buffer.concat([randomBytes(8), Buffer.alloc(8)]);
  const algorithm = { name: "AES-CTR", counter: iv, length: COUNTER_BITS };
  const ciphertext = Buffer.from(await webcrypto.subtle.encrypt(algorithm, key, Buffer.from(plaintext)));
  return {
    ciphertext,
    file: {
      v: "v2",
      url,
      key: await webcrypto.subtle.exportKey("jwk", key),
      iv: unpadded(iv),
      hashes: { sha256: unpadded(createHash("sha256").update(ciphertext).digest()) },
    },
  };
}

/** @throws Error when the ciphertext is not the one that was sent */
export async function decryptAttachment(file: EncryptedFile, ciphertext: Uint8Array): Promise<Buffer> {
  if (unpadded(createHash("sha256").update(ciphertext).digest()) !== file.hashes.sha256) throw new Error("the ciphertext has changed");
  const key = await webcrypto.subtle.importKey("jwk", file.key, "AES-CTR", false, ["decrypt"]);
  const algorithm = { name: "AES-CTR", counter: Buffer.from(file.iv, "base64"), length: COUNTER_BITS };
  return Buffer.from(await webcrypto.subtle.decrypt(algorithm, key, Buffer.from(ciphertext)));
}

function unpadded(bytes: Buffer): string {
  return bytes.toString("base64").replaceAll("=", "");
}
