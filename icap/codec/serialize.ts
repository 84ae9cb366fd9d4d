import type { BodySection, HeadSection } from "./encapsulated.ts";

/** Fields as name and value, in the order in which they are sent. */
export type HeaderFields = readonly (readonly [name: string, value: string])[];

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const LINE = /^[\x20-\x7e]+$/;
const VALUE = /^(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?$/;

/** The empty line after the last chunk is part of it. */
export const LAST_CHUNK = "0\r\n\r\n";
/** The last chunk of a preview that is the whole body (RFC 3507 section 4.5). */
export const LAST_CHUNK_IEOF = "0; ieof\r\n\r\n";

/** A start line and its fields, with the empty line. @throws TypeError when any of it would break out of its line. */
export function serializeHead(startLine: string, fields: HeaderFields): string {
  if (!LINE.test(startLine)) throw new TypeError("a start line may hold printable ASCII only");
  let head = `${startLine}\r\n`;
  for (const [name, value] of fields) {
    if (!TOKEN.test(name)) throw new TypeError("not a header name");
    if (!VALUE.test(value)) throw new TypeError(`the value of ${name} may hold printable ASCII only`);
    head += `${name}: ${value}\r\n`;
  }
  return `${head}\r\n`;
}

/**
 * An ICAP message up to its body: the head with its Encapsulated header, then the encapsulated heads. All is ASCII, so that offsets in
 * characters are offsets in bytes.
 */
export function serializeMessage(
  startLine: string,
  fields: HeaderFields,
  heads: readonly (readonly [section: HeadSection, head: string])[],
  body: BodySection,
): string {
  let offset = 0;
  const items = heads.map(([section, head]) => {
    const item = `${section}=${offset}`;
    offset += head.length;
    return item;
  });
  const encapsulated = [...items, `${body}=${offset}`].join(", ");
  return serializeHead(startLine, [...fields, ["Encapsulated", encapsulated]]) + heads.map(([, head]) => head).join("");
}

/** What stands before a chunk's bytes; CRLF stands after them. `size` is not 0: that would be the last chunk. */
export function chunkHead(size: number): string {
  return `${size.toString(16)}\r\n`;
}
