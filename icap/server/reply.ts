import { type HeaderFields, LAST_CHUNK, chunkHead, serializeHead, serializeMessage } from "../codec/serialize.ts";
import type { HttpMessage, IcapReply, ServiceTable } from "./types.ts";

const SERVER: HeaderFields = [["Server", "icap-server/1.0"]];

/** Reason phrases; nobody may read them. */
const REASONS: Readonly<Record<number, string>> = {
  100: "Continue",
  200: "OK",
  204: "No Content",
  400: "Bad Request",
  404: "Service Not Found",
  405: "Method Not Allowed",
  418: "Bad Composition",
  500: "Server Error",
};

export const CONTINUE = "ICAP/1.0 100 Continue\r\n\r\n";

/** OPTIONS' answer (RFC 3507 section 4.10.2). */
export function optionsReply(table: ServiceTable): string {
  return serializeMessage(
    statusLine(200),
    [
      ["Methods", (table.methods ?? ["RESPMOD"]).join(", ")],
      ...field("Service", table.description),
      ...SERVER,
      ...tagField(table),
      ["Options-TTL", String(table.optionsTtl ?? 3600)],
      ...field("Max-Connections", table.maxConnections),
      ...field("Preview", table.preview),
      ...((table.allow204 ?? true) ? field("Allow", "204") : []),
    ],
    [],
    "null-body",
  );
}

/** An answer without a message in it, after which the server closes the connection. */
export function refusal(status: number): string {
  return serializeHead(statusLine(status), [...SERVER, ["Connection", "close"]]);
}

/** An answer up to its body; `replyBody` follows where there is one. */
export function replyHeads(table: ServiceTable, { status, fields = [], http }: IcapReply): string {
  const all = [...SERVER, ["Connection", "keep-alive"] as const, ...tagField(table), ...fields];
  if (http === undefined)
    return status === 204 ? serializeHead(statusLine(status), all) : serializeMessage(statusLine(status), all, [], "null-body");
  const head = serializeHead(http.startLine, http.fields);
  return serializeMessage(statusLine(status), all, [["res-hdr", head]], http.body === undefined ? "null-body" : "res-body");
}

/** The pieces of a chunked body, with its last chunk. */
export async function* replyBody(body: NonNullable<HttpMessage["body"]>): AsyncGenerator<readonly (string | Uint8Array)[]> {
  if (body instanceof Uint8Array) {
    yield body.length === 0 ? [LAST_CHUNK] : [chunkHead(body.length), body, `\r\n${LAST_CHUNK}`];
    return;
  }
  for await (const bytes of body) {
    if (bytes.length > 0) yield [chunkHead(bytes.length), bytes, "\r\n"];
  }
  yield [LAST_CHUNK];
}

function statusLine(status: number): string {
  return `ICAP/1.0 ${status} ${REASONS[status] ?? "Status"}`;
}

function tagField({ isTag }: ServiceTable): HeaderFields {
  return [["ISTag", `"${typeof isTag === "string" ? isTag : isTag()}"`]];
}

function field(name: string, value: string | number | undefined): HeaderFields {
  return value === undefined ? [] : [[name, String(value)]];
}
