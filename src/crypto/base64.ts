/**
 * Strict base64. `Buffer.from` skips what it does not know and stops at the first `=`, so two strings that other decoders refuse or
 * read differently would name one key here. Accepted is what Matrix clients send: the standard and the URL-safe alphabet, even mixed,
 * with the whole padding or with none. Bits left over in the last character are dropped, as Ruma does it
 * (https://github.com/matrix-org/matrix-spec/issues/838): every decoder that accepts them reads the same bytes.
 */

const ALPHABET = /^[A-Za-z0-9+/_-]*$/;

/** The bytes, or undefined when `text` is not base64 or holds more than `limit` bytes. The work done is bounded by `limit`. */
export function decodeBase64UpTo(text: string, limit: number): Buffer | undefined {
  if (text.length > Math.ceil(limit / 3) * 4) return undefined;
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const digits = padding === 0 ? text : text.slice(0, -padding);
  if (digits.length % 4 === 1 || (padding > 0 && text.length % 4 !== 0) || !ALPHABET.test(digits)) return undefined;
  const bytes = Buffer.from(digits, "base64");
  return bytes.length <= limit ? bytes : undefined;
}

/** The bytes, or undefined when `text` is not the base64 of exactly `size` bytes. */
export function decodeBase64(text: string, size: number): Buffer | undefined {
  const bytes = decodeBase64UpTo(text, size);
  return bytes?.length === size ? bytes : undefined;
}

/** Standard alphabet, no padding: the form in which Matrix writes keys. */
export function encodeBase64(bytes: Buffer): string {
  return bytes.toString("base64").replace(/=+$/, "");
}
