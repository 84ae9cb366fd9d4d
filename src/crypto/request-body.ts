/** Request bodies that clients encrypt to the gateway's public key, so that proxies between them don't see the keys of attachments. */
import { GatewayError } from "../errors.ts";
import { decodeBase64, decodeBase64UpTo, encodeBase64 } from "./base64.ts";
import type { RequestKeys } from "./keys.ts";

const MAX_CIPHERTEXT = 16 * 1024;
const CIPHER_BLOCK = 16;
const MAC_SIZE = 8;
const EPHEMERAL_SIZE = 32;

/**
 * Decrypts an `encrypted_body`: `{ciphertext, mac, ephemeral}` of libolm's and vodozemac's PkEncryption.
 *
 * Its MAC is computed over an empty message, so it proves the ephemeral key alone and anyone who captured a body can send it again with
 * a changed ciphertext. If such a sender could tell why a body was refused, CBC would give its plaintext away byte by byte. Hence one error for all
 * that can be wrong, here and in what the caller then makes of the content: it turns its own complaints into `bad_decryption` too.
 *
 * As for time: what the sender can see without any key (shape, base64, sizes) is refused at once. From there every refused body has been
 * tried with all keys, and wrong padding, encoding, JSON and shape go through the same steps. Not made equal are the length of the
 * ciphertext and whether the MAC fits, which the sender knows anyway, and the microseconds by which a parser stops sooner or later.
 *
 * @returns the JSON object inside; an object is all that is known of it.
 * @throws GatewayError `bad_decryption`
 */
export function decryptRequestBody(keys: RequestKeys, encryptedBody: unknown): unknown {
  const message = readMessage(encryptedBody);
  if (message === undefined) throw new GatewayError("bad_decryption");
  const parts = {
    ciphertext: encodeBase64(message.ciphertext),
    mac: encodeBase64(message.mac),
    ephemeral: encodeBase64(message.ephemeral),
  };
  const content = keys.decrypt(parts, (plaintext) => readPlaintext(plaintext, message.ciphertext.length));
  if (content === undefined) throw new GatewayError("bad_decryption");
  return content;
}

function readMessage(value: unknown): { ciphertext: Buffer; mac: Buffer; ephemeral: Buffer } | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { ciphertext, mac, ephemeral } = value as Record<string, unknown>;
  if (typeof ciphertext !== "string" || typeof mac !== "string" || typeof ephemeral !== "string") return undefined;
  const parts = {
    ciphertext: decodeBase64UpTo(ciphertext, MAX_CIPHERTEXT),
    mac: decodeBase64(mac, MAC_SIZE),
    ephemeral: decodeBase64(ephemeral, EPHEMERAL_SIZE),
  };
  if (parts.ciphertext === undefined || parts.mac === undefined || parts.ephemeral === undefined) return undefined;
  if (parts.ciphertext.length === 0 || parts.ciphertext.length % CIPHER_BLOCK !== 0) return undefined;
  return { ciphertext: parts.ciphertext, mac: parts.mac, ephemeral: parts.ephemeral };
}

/**
 * libolm hands out a string: invalid UTF-8 has become U+FFFD in it, and it ends at the first NUL. Both are refused, or a garbled block
 * inside a JSON string would pass one time in ten and tell something about its bytes. No field of an encrypted file holds a U+FFFD.
 */
function readPlaintext(plaintext: string, ciphertextSize: number): object | undefined {
  const padding = ciphertextSize - Buffer.byteLength(plaintext);
  let content: unknown;
  try {
    content = JSON.parse(plaintext);
  } catch {
    return undefined;
  }
  if (padding < 1 || padding > CIPHER_BLOCK || plaintext.includes("\u{FFFD}")) return undefined;
  return typeof content === "object" && content !== null && !Array.isArray(content) ? content : undefined;
}
