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

/** Fields as lines. @throws TypeError when any of them would break out of its line. */
export function serializeFields(fields: HeaderFields): string {
  let lines = "";
  for (const [name, value] of fields) {
    if (!TOKEN.test(name)) throw new TypeError("not a header name");
    if (!VALUE.test(value)) throw new TypeError(`the value of ${name} may hold printable ASCII only`);
    lines += `${name}: ${value}\r\n`;
  }
  return lines;
}

/** A start line and its fields, as lines; more may follow. @throws TypeError when any of it would break out of its line. */
export function serializeLines(startLine: string, fields: HeaderFields): string {
  if (!LINE.test(startLine)) throw new TypeError("a start line may hold printable ASCII only");
  return `${startLine}\r\n${serializeFields(fields)}`;
}

/** As `serializeLines`, with the empty line. */
export function serializeHead(startLine: string, fields: HeaderFields): string {
  return `${serializeLines(startLine, fields)}\r\n`;
}

type Heads = readonly (readonly [section: HeadSection, head: string])[];

/**
 * An ICAP message up to its body: the head with its Encapsulated header, then the encapsulated heads. All is ASCII, so that offsets in
 * characters are offsets in bytes.
 */
export function serializeMessage(startLine: string, fields: HeaderFields, heads: Heads, body: BodySection): string {
  return encapsulate(serializeLines(startLine, fields), heads, body);
}

/** As `serializeMessage`, of lines that were serialized before. */
export function encapsulate(lines: string, heads: Heads, body: BodySection): string {
  let offset = 0;
  let offsets = "";
  let content = "";
  for (const [section, head] of heads) {
    offsets += `${section}=${offset}, `;
    offset += head.length;
    content += head;
  }
  return `${lines}Encapsulated: ${offsets}${body}=${offset}\r\n\r\n${content}`;
}

/** What stands before a chunk's bytes; CRLF stands after them. `size` is not 0: that would be the last chunk. */
export function chunkHead(size: number): string {
  return `${size.toString(16)}\r\n`;
}
