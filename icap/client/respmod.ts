import { serializeHead, serializeMessage } from "../codec/serialize.ts";
import type { ExchangeRequest } from "./exchange.ts";
import type { Target } from "./target.ts";
import type { IcapScanRequest } from "./types.ts";

/** Of the HTTP response that is sent to be scanned. */
export const SENT_HTTP_STATUS = 200;

const USER_AGENT = "icap-scan/1.0";
/** Reserved (RFC 2606): the file has no address that a server could go to. */
const MEDIA_HOST = "media.invalid";
const CONTENT_TYPE = /^[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?$/;
// oxlint-disable-next-line no-control-regex -- these are the very characters that must not be there
const CONTROL = /[\0-\x1f\x7f]/;
const MAX_NAME = 255;

/** An OPTIONS request (RFC 3507 section 4.10). */
export function optionsRequest(target: Target): ExchangeRequest {
  const heads = serializeMessage(`OPTIONS ${target.uri} ICAP/1.0`, fields(target), [], "null-body");
  return { heads, body: undefined, size: 0, preview: undefined };
}

/**
 * A RESPMOD request around a GET and its 200 (RFC 3507 section 4.9): both heads and Content-Length, because some servers ask for them.
 * `preview` is the most that the service wants; undefined for none. An empty body is sent as one, a last chunk alone, and without a preview: c-icap
 * answers that with a 204.
 * @throws TypeError for a size, type or name that can't be sent.
 */
export function respmodRequest(target: Target, request: IcapScanRequest, preview: number | undefined): ExchangeRequest {
  checkRequest(request);
  const { size } = request;
  const previewed = preview === undefined || size === 0 ? undefined : Math.min(preview, size);
  const req = serializeHead(`GET http://${MEDIA_HOST}/${encodeURIComponent(request.fileName)} HTTP/1.1`, [["Host", MEDIA_HOST]]);
  const res = serializeHead(`HTTP/1.1 ${SENT_HTTP_STATUS} OK`, [
    ["Content-Type", request.contentType],
    ["Content-Length", String(size)],
  ]);
  const heads = serializeMessage(
    `RESPMOD ${target.uri} ICAP/1.0`,
    [...fields(target), ["Allow", "204"], ...(previewed === undefined ? [] : ([["Preview", String(previewed)]] as const))],
    [
      ["req-hdr", req],
      ["res-hdr", res],
    ],
    "res-body",
  );
  return { heads, body: request.body, size, preview: previewed };
}

function checkRequest({ size, contentType, fileName }: IcapScanRequest): void {
  if (!Number.isSafeInteger(size) || size < 0) throw new TypeError("size must be a number of bytes");
  if (!CONTENT_TYPE.test(contentType)) throw new TypeError("contentType must be a media type in printable ASCII");
  if (fileName === "" || fileName.length > MAX_NAME || CONTROL.test(fileName) || !fileName.isWellFormed()) {
    throw new TypeError(`fileName must have 1 to ${MAX_NAME} characters, none of them a control character`);
  }
}

function fields(target: Target): (readonly [string, string])[] {
  return [
    ["Host", target.authority],
    ["User-Agent", USER_AGENT],
  ];
}
