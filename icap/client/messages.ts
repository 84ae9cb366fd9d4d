import { type HeaderFields, encapsulate, serializeFields, serializeLines, serializeMessage } from "../codec/serialize.ts";
import type { Credentials } from "./credentials.ts";
import type { ExchangeRequest } from "./exchange.ts";
import { checkFields } from "./fields.ts";
import type { Target } from "./target.ts";
import type { IcapMethod, IcapScanRequest } from "./types.ts";

/** Of the HTTP response that is sent to be scanned. */
export const SENT_HTTP_STATUS = 200;

const USER_AGENT = "icap-scan/1.0";
/** Reserved (RFC 2606): the file has no address that a server could go to. */
const MEDIA_HOST = "media.invalid";
/** What follows the URI of the encapsulated request, but for fields of its body. */
const REQUEST = ` HTTP/1.1\r\nHost: ${MEDIA_HOST}\r\n`;
const CONTENT_TYPE = /^[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?$/;
// oxlint-disable-next-line no-control-regex -- these are the very characters that must not be there
const CONTROL = /[\0-\x1f\x7f]/;
const MAX_NAME = 255;

export interface ScanMessage extends ExchangeRequest {
  /** Method and URI of the encapsulated request. */
  readonly httpTarget: string;
}

/** The requests to one service, up to their bodies. */
export class Messages {
  readonly #method: IcapMethod;
  readonly #options: string;
  /** What every scan's ICAP head begins with. */
  readonly #scan: string;

  /**
   * @param fields of the operator's own, for every request
   * @throws TypeError for a field that can't be sent
   */
  constructor(target: Target, method: IcapMethod, credentials: Credentials | undefined, fields: HeaderFields) {
    this.#method = method;
    const proof = credentials === undefined ? [] : [credentials.field];
    const own: HeaderFields = [["Host", target.authority], ["User-Agent", USER_AGENT], ...proof, ...fields];
    this.#options = serializeMessage(`OPTIONS ${target.uri} ICAP/1.0`, own, [], "null-body");
    this.#scan = serializeLines(`${method} ${target.uri} ICAP/1.0`, [...own, ["Allow", "204"]]);
  }

  /** An OPTIONS request (RFC 3507 section 4.10). */
  options(): ExchangeRequest {
    const heads = this.#options;
    return { heads, body: undefined, section: "res-body", size: 0, preview: undefined, take: undefined };
  }

  /**
   * A RESPMOD request around a GET and its 200 (RFC 3507 section 4.9), with both heads, because some servers ask for them; or a REQMOD request
   * around a POST (section 4.8). Content-Length is always told. `preview` is the most that the service wants; undefined for none. An empty body
   * is sent as one, a last chunk alone, and without a preview: c-icap answers that with a 204.
   * @throws TypeError for what can't be sent: size, type, name or fields.
   */
  scan(request: IcapScanRequest, preview: number | undefined): ScanMessage {
    checkRequest(request);
    const { size, body, returned, contentType, fileName, fields = [] } = request;
    const previewed = preview === undefined || size === 0 ? undefined : Math.min(preview, size);
    const lines = `${this.#scan}${previewed === undefined ? "" : `Preview: ${previewed}\r\n`}${serializeFields(fields)}`;
    // What was checked can't break out of these lines.
    const about = `Content-Type: ${contentType}\r\nContent-Length: ${size}\r\n\r\n`;
    const uri = `http://${MEDIA_HOST}/${encodeURIComponent(fileName)}`;
    const common = { body, size, preview: previewed, take: returned };
    if (this.#method === "REQMOD") {
      const httpTarget = `POST ${uri}`;
      const heads = encapsulate(lines, [["req-hdr", `${httpTarget}${REQUEST}${about}`]], "req-body");
      return { ...common, heads, section: "req-body", httpTarget };
    }
    const httpTarget = `GET ${uri}`;
    const encapsulated = [
      ["req-hdr", `${httpTarget}${REQUEST}\r\n`],
      ["res-hdr", `HTTP/1.1 ${SENT_HTTP_STATUS} OK\r\n${about}`],
    ] as const;
    return { ...common, heads: encapsulate(lines, encapsulated, "res-body"), section: "res-body", httpTarget };
  }
}

/** Whether a request line that came back has this method and URI, whatever its version. */
export function isRequestFor(httpTarget: string, startLine: string): boolean {
  return startLine.startsWith(`${httpTarget} `) && /^ HTTP\/\d(?:\.\d)?$/.test(startLine.slice(httpTarget.length));
}

function checkRequest({ size, contentType, fileName, fields = [] }: IcapScanRequest): void {
  if (!Number.isSafeInteger(size) || size < 0) throw new TypeError("size must be a number of bytes");
  if (!CONTENT_TYPE.test(contentType)) throw new TypeError("contentType must be a media type in printable ASCII");
  if (fileName === "" || fileName.length > MAX_NAME || CONTROL.test(fileName) || !fileName.isWellFormed()) {
    throw new TypeError(`fileName must have 1 to ${MAX_NAME} characters, none of them a control character`);
  }
  checkFields(fields);
}
