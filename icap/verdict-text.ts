const MAX_TEXT = 200;

/** Controls, formatting (bidirectional overrides among it), line separators, and what has no meaning yet. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/u;

/**
 * What a peer wrote, as at most 200 characters that a log or a terminal takes as text: control characters are escaped, bytes of UTF-8
 * that were read as Latin-1 are put right.
 */
export function printable(raw: string): string {
  let out = "";
  for (const char of asUtf8(raw).toWellFormed().trim()) {
    const piece = UNPRINTABLE.test(char) ? `\\u{${(char.codePointAt(0) ?? 0).toString(16)}}` : char;
    if (out.length + piece.length >= MAX_TEXT) return `${out}…`;
    out += piece;
  }
  return out === "" ? "unnamed" : out;
}

/** A header block may be UTF-8 or Latin-1, and its parser has to choose one. */
function asUtf8(raw: string): string {
  const text = raw.slice(0, 4 * MAX_TEXT);
  const codes = Array.from(text, (char) => char.codePointAt(0) ?? 0);
  if (codes.some((code) => code > 0xff)) return text;
  try {
    // With `stream`, a character that the cut above has split is left out.
    return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(codes), { stream: text.length < raw.length });
  } catch {
    return text;
  }
}
