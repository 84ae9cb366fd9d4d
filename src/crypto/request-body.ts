/** Request bodies that clients encrypt to the gateway's public key, so that proxies between them don't see the keys of attachments. */
import { GatewayError } from "../errors.ts";
import { decodeBase64, decodeBase64UpTo } from "./base64.ts";
import type { RequestKeys } from "./keys.ts";
import { CIPHER_BLOCK, EPHEMERAL_SIZE, MAC_SIZE, type PkMessage } from "./pk-decryption.ts";

const MAX_CIPHERTEXT = 16 * 1024;

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
  const content = keys.decrypt(message, readPlaintext);
  if (content === undefined) throw new GatewayError("bad_decryption");
  return content;
}

function readMessage(value: unknown): PkMessage | undefined {
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
 * What stands before sound padding is JSON in UTF-8; unsound padding is left where it is, and refused after the same steps. Bytes that are no UTF-8 have
 * become U+FFFD, or a garbled block inside a JSON string would pass one time in ten and tell something about its bytes. No field of an encrypted file
 * holds a U+FFFD.
 */
function readPlaintext(padded: Buffer): object | undefined {
  const padding = soundPadding(padded);
  const text = padded.toString("utf8", 0, padded.length - padding);
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (padding === 0 || text.includes("\u{FFFD}")) return undefined;
  return typeof content === "object" && content !== null && !Array.isArray(content) ? content : undefined;
}

/** How many bytes of it are padding; 0: it is none. Looks at a whole block, whatever is in it. */
function soundPadding(padded: Buffer): number {
  const last = padded.at(-1) ?? 0;
  let wrong = last < 1 || last > CIPHER_BLOCK || last > padded.length ? 1 : 0;
  for (let back = 1; back <= CIPHER_BLOCK; back += 1) {
    const byte = padded.at(-back) ?? 0;
    wrong |= back <= last ? byte ^ last : 0;
  }
  return wrong === 0 ? last : 0;
}
