import type { HeaderBlock } from "../codec/headers.ts";
import { IcapError } from "../errors.ts";
import type { Answer } from "./answer.ts";
import { readTransferLists } from "./transfer-lists.ts";
import type { IcapMethod, ServiceInfo } from "./types.ts";

/** Seconds. */
const DEFAULT_TTL = 60;
const MAX_TTL = 24 * 60 * 60;
const MAX_ISTAG = 256;
const MAX_SERVICE = 200;
const MAX_INCLUDE = 64;
const FIELD_NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}$/;

/**
 * Reads the answer to OPTIONS (RFC 3507 section 4.10.2) of a service that is to do `method`.
 * @throws IcapError `wrong_service` when there is no such service or it doesn't do that, `unavailable` when it is refused otherwise.
 */
export function readServiceInfo({ status, headers }: Answer, method: IcapMethod): ServiceInfo {
  if (status !== 200) throw refusal(status);
  const methods = headers
    .all("methods")
    .flatMap((value) => value.split(/[,\s]+/))
    .filter(isName);
  const upper = methods.map((name) => name.toUpperCase());
  if (upper.length > 0 && !upper.includes(method)) throw new IcapError("wrong_service", `the service does not do ${method}`);
  const ttl = number(headers, "options-ttl") ?? DEFAULT_TTL;
  const maxConnections = number(headers, "max-connections");
  return {
    isTag: readIsTag(headers),
    methods: upper,
    preview: number(headers, "preview"),
    allow204: headers.lists("allow", "204"),
    maxConnections: maxConnections === 0 ? undefined : maxConnections,
    optionsTtl: Math.min(Math.max(ttl, 1), MAX_TTL),
    include: readInclude(headers),
    transfer: readTransferLists(headers),
    service: headers
      .get("service")
      ?.replace(/[^\x20-\x7e]/g, "?")
      .slice(0, MAX_SERVICE),
  };
}

function refusal(status: number): IcapError {
  if (status === 407) return new IcapError("unavailable", "OPTIONS was answered with ICAP 407: the service wants (other) credentials");
  if (status === 404)
    return new IcapError("wrong_service", "OPTIONS was answered with ICAP 404: no such service, check the path of its URL");
  const code = status >= 400 && status < 500 && status !== 408 ? "wrong_service" : "unavailable";
  return new IcapError(code, `OPTIONS was answered with ICAP ${status}`);
}

function readInclude(headers: HeaderBlock): readonly string[] {
  const names = headers.all("x-include").flatMap((value) => value.split(/[,\s]+/));
  return [...new Set(names.filter((name) => FIELD_NAME.test(name)).map((name) => name.toLowerCase()))].slice(0, MAX_INCLUDE);
}

/**
 * An answer's ISTag without its quotes (RFC 3507 section 4.7); servers leave them out, and exceed the 32 bytes.
 * @throws IcapError `limit` for one that is longer than any server's: cut short, two tags could look the same.
 */
export function readIsTag(headers: HeaderBlock): string | undefined {
  const said = headers.get("istag");
  const quoted = said !== undefined && said.length > 1 && said.startsWith('"') && said.endsWith('"');
  const tag = quoted ? said.slice(1, -1) : said;
  if (tag !== undefined && tag.length > MAX_ISTAG) throw new IcapError("limit", `an ISTag of more than ${MAX_ISTAG} characters`);
  return tag === "" ? undefined : tag;
}

function number(headers: HeaderBlock, name: string): number | undefined {
  const value = headers.get(name);
  return value !== undefined && /^\d{1,9}$/.test(value) ? Number(value) : undefined;
}

function isName(text: string): boolean {
  return /^[A-Za-z]{1,32}$/.test(text);
}
