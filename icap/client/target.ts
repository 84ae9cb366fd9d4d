/** Where a service is, in the forms that the wire needs. */
export interface Target {
  readonly scheme: "icap" | "icaps";
  /** Over TLS: the scheme is `icaps`. */
  readonly secure: boolean;
  /** Without the brackets of an IPv6 literal. */
  readonly host: string;
  readonly port: number;
  /** The value of the Host field. */
  readonly authority: string;
  /** The absolute request URI. */
  readonly uri: string;
}

const DEFAULT_PORTS = { icap: 1344, icaps: 11344 } as const;
const MAX_LENGTH = 2048;
/** A DNS name, underscores included, with or without its final dot. */
export const HOST_NAME = /^(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$/;
const IPV6_LITERAL = /^\[[0-9A-Fa-f:.]+\]$/;

/**
 * Reads `icap://host[:port]/path?query` (RFC 3507 section 4.2) or the same with `icaps`, which is ICAP over TLS from the first byte on
 * (no RFC has it; port 11344 is what appliances and Squid take). A URL without a path gets `defaultPath`, and that one's query unless it has its own.
 *
 * The request URI keeps the scheme of the URL, as Squid does; c-icap takes either, whatever the connection.
 * @throws TypeError for anything else. What comes out can't break out of a request line or a header.
 */
export function parseTarget(url: string, defaultPath = "/"): Target {
  const parsed = parse(url);
  const scheme = parsed.protocol === "icaps:" ? "icaps" : "icap";
  const { hostname } = parsed;
  const literal = IPV6_LITERAL.test(hostname);
  if (!literal && (hostname.length > 253 || !HOST_NAME.test(hostname)))
    throw new TypeError("an ICAP URL needs a valid host name or address");
  const port = parsed.port === "" ? DEFAULT_PORTS[scheme] : Number(parsed.port);
  if (port === 0) throw new TypeError("an ICAP URL needs a port from 1 to 65535");
  const authority = `${hostname}:${port}`;
  const { pathname, search } = parsed.pathname === "" ? parse(`${scheme}://${authority}/${defaultPath.replace(/^\//, "")}`) : parsed;
  return {
    scheme,
    secure: scheme === "icaps",
    host: literal ? hostname.slice(1, -1) : hostname,
    port,
    authority,
    uri: `${scheme}://${authority}${pathname}${parsed.search === "" ? search : parsed.search}`,
  };
}

function parse(url: string): URL {
  // Before URL sees it: URL drops tabs and line ends without a word.
  if (!/^[\x21-\x7e]+$/.test(url)) throw new TypeError("an ICAP URL may hold printable ASCII without blanks only");
  if (url.length > MAX_LENGTH) throw new TypeError(`an ICAP URL may have ${MAX_LENGTH} characters at most`);
  const parsed = URL.parse(url);
  if (parsed === null || !/^icaps?:$/.test(parsed.protocol) || !/^icaps?:\/\//i.test(url)) {
    throw new TypeError("an ICAP URL has the form icap://host[:port]/path?query, or icaps:// for TLS");
  }
  if (parsed.username !== "" || parsed.password !== "") throw new TypeError("an ICAP URL may not hold a user name or password");
  if (url.includes("#")) throw new TypeError("an ICAP URL may not hold a fragment");
  return parsed;
}
