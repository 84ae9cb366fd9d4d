import { HeaderBlock } from "./headers.ts";
import type { IcapLimits } from "./limits.ts";
import { MalformedMessage, quote } from "./malformed.ts";

export interface StatusLine {
  readonly status: number;
}

export interface RequestLine {
  readonly method: string;
  readonly uri: string;
}

/** An encapsulated HTTP head. */
export interface HttpHead {
  readonly startLine: string;
  readonly headers: HeaderBlock;
}

export interface HttpResponseHead extends HttpHead {
  readonly status: number;
}

const STATUS_LINE = /^ICAP\/1\.\d ([1-5]\d\d)(?: |$)/;
const REQUEST_LINE = /^([A-Z]{1,32}) ([\x21-\x7e]+) ICAP\/1\.\d$/;
const HTTP_STATUS_LINE = /^HTTP\/\d(?:\.\d)? ([1-9]\d\d)(?: |$)/;

/** `ICAP/1.0 204 No Content`; reason phrases vary and are never read. */
export function parseStatusLine(line: string): StatusLine {
  const match = STATUS_LINE.exec(line);
  if (match === null) throw new MalformedMessage("protocol", `not an ICAP status line: ${quote(line)}`);
  return { status: Number(match[1]) };
}

/** `RESPMOD icap://host/service ICAP/1.0`. */
export function parseRequestLine(line: string): RequestLine {
  const match = REQUEST_LINE.exec(line);
  if (match === null) throw new MalformedMessage("protocol", `not an ICAP request line: ${quote(line)}`);
  return { method: match[1] ?? "", uri: match[2] ?? "" };
}

/** An ICAP head up to and including its empty line, each line ending in CRLF (`BlockReader` made sure of that). */
export function splitHead(block: Buffer): string[] {
  return clean(decode(block)).slice(0, -4).split("\r\n");
}

/**
 * An encapsulated head. Its length is given by offsets, so that its end shows whether they were true: the empty line has to
 * be its last and its only one. Lines may end in LF alone; block pages are made by many hands.
 */
export function parseHttpHead(block: Buffer, limits: IcapLimits): HttpHead {
  const text = clean(decode(block)).replaceAll("\r\n", "\n");
  const end = text.indexOf("\n\n");
  if (end === -1 || end !== text.length - 2) {
    throw new MalformedMessage("protocol", "an encapsulated head does not end where the Encapsulated header says");
  }
  const lines = text.slice(0, end).split("\n");
  return { startLine: lines[0] ?? "", headers: HeaderBlock.parse(lines, 1, limits) };
}

/** As `parseHttpHead`, for a response. */
export function parseHttpResponseHead(block: Buffer, limits: IcapLimits): HttpResponseHead {
  const head = parseHttpHead(block, limits);
  const match = HTTP_STATUS_LINE.exec(head.startLine);
  if (match === null) throw new MalformedMessage("protocol", `not an HTTP status line: ${quote(head.startLine)}`);
  return { ...head, status: Number(match[1]) };
}

/** Text is UTF-8 where it can be, else Latin-1: both occur, and neither is announced. */
function decode(block: Buffer): string {
  const latin1 = block.toString("latin1");
  if (!/[\x80-\xff]/.test(latin1)) return latin1;
  const utf8 = block.toString("utf8");
  return utf8.includes("\ufffd") ? latin1 : utf8;
}

function clean(text: string): string {
  // oxlint-disable-next-line no-control-regex -- these are the very characters that must not be there
  if (/\0|\r(?!\n)/.test(text)) throw new MalformedMessage("protocol", "a head holds a NUL or a bare CR");
  return text;
}
