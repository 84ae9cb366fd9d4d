/** Text that others chose (names of files, threats, what a server says of itself), made fit for a terminal. */

/** Controls, formatting (bidirectional overrides among it), line separators, lone surrogates, and what has no meaning yet. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** One line in which whatever a terminal might obey is written out as `\u{…}`. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, (char) => `\\u{${(char.codePointAt(0) ?? 0).toString(16)}}`);
}

/** One line of JSON, in which such characters are escaped in JSON's own way. */
export function jsonLine(value: unknown): string {
  return `${JSON.stringify(value).replace(UNPRINTABLE, (char) => escapedUnits(char))}\n`;
}

function escapedUnits(char: string): string {
  return Array.from({ length: char.length }, (_, index) => `\\u${char.charCodeAt(index).toString(16).padStart(4, "0")}`).join("");
}
