/** Where a service is, in the forms that the wire needs. */
export interface Target {
  /** Without the brackets of an IPv6 literal. */
  readonly host: string;
  readonly port: number;
  /** The value of the Host field. */
  readonly authority: string;
  /** The absolute request URI. */
  readonly uri: string;
}

const DEFAULT_PORT = 1344;
const MAX_LENGTH = 2048;
const HOST_NAME = /^(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$/;
const IPV6_LITERAL = /^\[[0-9A-Fa-f:.]+\]$/;

/**
 * Reads `icap://host[:port]/path?query` (RFC 3507 section 4.2).
 * @throws TypeError for anything else. What comes out can't break out of a request line or a header.
 */
export function parseTarget(url: string): Target {
  // Before URL sees it: URL drops tabs and line ends without a word.
  if (!/^[\x21-\x7e]+$/.test(url)) throw new TypeError("an ICAP URL may hold printable ASCII without blanks only");
  if (url.length > MAX_LENGTH) throw new TypeError(`an ICAP URL may have ${MAX_LENGTH} characters at most`);
  const parsed = URL.parse(url);
  if (parsed === null || parsed.protocol !== "icap:" || !/^icap:\/\//i.test(url)) {
    throw new TypeError("an ICAP URL has the form icap://host[:port]/path?query");
  }
  if (parsed.username !== "" || parsed.password !== "") throw new TypeError("an ICAP URL may not hold a user name or password");
  if (url.includes("#")) throw new TypeError("an ICAP URL may not hold a fragment");
  const { hostname } = parsed;
  const literal = IPV6_LITERAL.test(hostname);
  if (!literal && (hostname.length > 253 || !HOST_NAME.test(hostname)))
    throw new TypeError("an ICAP URL needs a valid host name or address");
  const port = parsed.port === "" ? DEFAULT_PORT : Number(parsed.port);
  if (port === 0) throw new TypeError("an ICAP URL needs a port from 1 to 65535");
  const authority = `${hostname}:${port}`;
  return {
    host: literal ? hostname.slice(1, -1) : hostname,
    port,
    authority,
    uri: `icap://${authority}${parsed.pathname === "" ? "/" : parsed.pathname}${parsed.search}`,
  };
}
