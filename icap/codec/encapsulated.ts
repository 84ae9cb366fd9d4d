import type { IcapLimits } from "./limits.ts";
import { MalformedMessage, quote } from "./malformed.ts";

export type HeadSection = "req-hdr" | "res-hdr";
export type BodySection = "req-body" | "res-body" | "opt-body" | "null-body";

/** What an Encapsulated header promises (RFC 3507 section 4.4.1). */
export interface Encapsulated {
  /** The heads that come before the body, in order, with their lengths in bytes. */
  readonly heads: readonly { readonly section: HeadSection; readonly length: number }[];
  /** Bytes of all heads. */
  readonly headBytes: number;
  readonly body: BodySection;
}

const ITEM = /^[ \t]*([a-z-]+)[ \t]*=[ \t]*(\d{1,10})[ \t]*$/i;
/** Each section at most once. */
const MAX_ITEMS = 3;

/**
 * Reads `req-hdr=0, res-hdr=45, res-body=100`: offsets from 0 upwards, heads first, one body last.
 * @throws MalformedMessage when it is anything else, or the heads are longer than `headerBytes`.
 */
export function parseEncapsulated(value: string, limits: IcapLimits): Encapsulated {
  const items = value.split(",", MAX_ITEMS + 1).map((item) => {
    const match = ITEM.exec(item);
    if (match === null) throw malformed(value);
    return { name: (match[1] ?? "").toLowerCase(), offset: Number(match[2]) };
  });
  const body = items.pop();
  if (body === undefined || items.length === MAX_ITEMS || !isBody(body.name)) throw malformed(value);
  const heads = items.map(({ name, offset }, at) => {
    if (!isHead(name) || items.findIndex((item) => item.name === name) !== at) throw malformed(value);
    return { section: name, length: (items[at + 1] ?? body).offset - offset };
  });
  if ((items[0] ?? body).offset !== 0 || heads.some(({ length }) => length <= 0)) throw malformed(value);
  if (body.offset > limits.headerBytes) {
    throw new MalformedMessage("limit", `the encapsulated heads are longer than ${limits.headerBytes} bytes`);
  }
  return { heads, headBytes: body.offset, body: body.name };
}

function malformed(value: string): MalformedMessage {
  return new MalformedMessage("protocol", `not a valid Encapsulated header: ${quote(value)}`);
}

function isHead(name: string): name is HeadSection {
  return name === "req-hdr" || name === "res-hdr";
}

function isBody(name: string): name is BodySection {
  return name === "req-body" || name === "res-body" || name === "opt-body" || name === "null-body";
}
