import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { ChunkedEnd } from "../../../icap/codec/chunked.ts";
import { parseStatusLine } from "../../../icap/codec/head.ts";
import { type IcapLimits, limitsFrom } from "../../../icap/codec/limits.ts";
import { MessageParser } from "../../../icap/codec/parser.ts";

/** Answers of c-icap 0.5.10 with virus_scan and clamd, byte for byte. */
export const RECORDED = ["options", "clean", "infected", "echo", "engine-down", "not-found"].map((name) => ({
  name,
  bytes: recorded(name),
}));

export function recorded(name: string): Buffer {
  return readFileSync(join(import.meta.dirname, `../fixtures/c-icap-${name}.icap`));
}

/** What the parser makes of an answer that comes in these pieces; what comes after it is left. */
export function parse(pieces: readonly Uint8Array[], limits: Partial<IcapLimits> = {}) {
  const found = {
    status: 0,
    fields: [] as (readonly [string, string])[],
    http: undefined as { startLine: string; status: number; fields: (readonly [string, string])[] } | undefined,
    request: undefined as string | undefined,
    bodySection: undefined as string | undefined,
    body: "",
    complete: false,
    trailer: [] as (readonly [string, string])[],
    read: 0,
  };
  const parser = new MessageParser(parseStatusLine, limitsFrom(limits), {
    head({ start, headers, httpRequest, httpResponse, body }) {
      found.status = start.status;
      found.fields = headers.entries();
      found.request = httpRequest?.startLine;
      found.bodySection = body;
      if (httpResponse === undefined) return;
      found.http = { startLine: httpResponse.startLine, status: httpResponse.status, fields: httpResponse.headers.entries() };
    },
    data(bytes) {
      found.body += bytes.toString("latin1");
    },
    end(chunked: ChunkedEnd | undefined) {
      found.complete = true;
      found.trailer = chunked?.trailer.entries() ?? [];
    },
  });
  for (const piece of pieces) {
    if (parser.done) break;
    found.read += parser.push(Buffer.from(piece));
  }
  return found;
}
