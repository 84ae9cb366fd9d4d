/**
 * Keeps requests to servers that nobody configured (discovered homeservers, redirects away from the configured one) off internal
 * addresses. A name is checked by what it resolves to at the moment of connecting, so a name that changes its mind between a check
 * and the connection gains nothing; an address written in a URL never reaches a lookup and is checked by itself.
 */
import { Resolver } from "node:dns/promises";
import { isIP } from "node:net";
import type { LookupFunction } from "node:net";
import { callbackify } from "node:util";
import ipaddr from "ipaddr.js";

export interface ResolvedAddress {
  readonly address: string;
  readonly family: 4 | 6;
}

/** All addresses of a name; rejects when it has none. */
export type Resolve = (hostname: string) => Promise<readonly ResolvedAddress[]>;

/** Whether an address (no brackets, as `net.isIP` takes it) may be connected to. */
export type AddressFilter = (address: string) => boolean;

/** A URL or address that the guard does not let through. Its message is safe to log: bounded, and made of parsed parts. */
export class AddressRefusedError extends Error {
  override readonly name = "AddressRefusedError";
  readonly code = "ERR_ADDRESS_REFUSED";
}

const GLOBAL_UNICAST_V6: [ipaddr.IPv6, number] = [ipaddr.IPv6.parse("2000::"), 3];
const NAT64_WELL_KNOWN: [ipaddr.IPv6, number] = [ipaddr.IPv6.parse("64:ff9b::"), 96];

/**
 * True for global unicast addresses only. IPv4-mapped addresses, and NAT64's of the well-known prefix (RFC 6052), are judged by the IPv4 address
 * inside; every other form that holds one (IPv4-compatible, local NAT64, 6to4, Teredo) is refused.
 */
export function isPublicAddress(address: string): boolean {
  if (isIP(address) === 0) return false;
  // In groups of hexadecimal digits alone: ipaddr.js takes `::8.8.8.8` for `::ffff:8.8.8.8`. A zone (`%eth0`) is no part of a public address.
  const canonical = isIP(address) === 4 ? address : URL.parse(`http://[${address}]`)?.hostname.slice(1, -1);
  if (canonical === undefined) return false;
  const parsed = ipaddr.process(canonical);
  if (parsed instanceof ipaddr.IPv4) return parsed.range() === "unicast";
  if (parsed.match(NAT64_WELL_KNOWN)) return isPublicAddress(new ipaddr.IPv4(parsed.toByteArray().slice(12)).toString());
  return parsed.match(GLOBAL_UNICAST_V6) && parsed.range() === "unicast";
}

/** The host of a parsed URL when it is an address rather than a name: without brackets, as `net.isIP` takes it. */
export function addressLiteral(url: URL): string | undefined {
  const host = url.hostname.replace(/^\[|\]$/g, "");
  return isIP(host) === 0 ? undefined : host;
}

/**
 * Lets through https URLs without user information whose host is a name or an allowed address. URL parsing has already turned
 * `0x7f.1`, `2130706433` and the like into dotted quads.
 * @throws AddressRefusedError
 */
export function guardUrl(url: URL, isAllowed: AddressFilter): void {
  if (url.protocol !== "https:")
    throw new AddressRefusedError(`only https is used towards servers that are not configured, not ${quote(url.protocol)}`);
  if (url.username !== "" || url.password !== "") throw new AddressRefusedError("a URL with user information");
  const literal = addressLiteral(url);
  if (literal !== undefined && !isAllowed(literal)) throw new AddressRefusedError(`${literal} is not a public address`);
}

/** All addresses of a name, provided that every one of them is allowed. @throws AddressRefusedError; what `resolve` throws */
export async function resolveAllowed(hostname: string, resolve: Resolve, isAllowed: AddressFilter): Promise<readonly ResolvedAddress[]> {
  const addresses = await resolve(hostname);
  const refused = addresses.find(({ address }) => !isAllowed(address));
  if (refused !== undefined)
    throw new AddressRefusedError(`${quote(hostname)} resolves to ${quote(refused.address)}, which is not a public address`);
  return addresses;
}

/** The lookup of a socket's `connect`: what it lets through is what the socket connects to. */
export function guardedLookup(resolve: Resolve, isAllowed: AddressFilter): LookupFunction {
  const lookup = callbackify((hostname: string) => resolveAllowed(hostname, resolve, isAllowed));
  return (hostname, options, callback) => {
    lookup(hostname, (error, addresses) => {
      const [first] = addresses ?? [];
      if (error !== null) callback(error, "");
      else if (first === undefined) callback(new AddressRefusedError(`${quote(hostname)} has no address`), "");
      else if (options.all === true) callback(null, [...addresses]);
      else callback(null, first.address, first.family);
    });
  };
}

/**
 * Resolves over DNS alone, IPv4 first. Not by `dns.lookup`, which holds one of the process's few worker threads for as long as an
 * attacker's name server likes, and which takes names from the host's own files.
 */
export function dnsResolve(hostname: string): Promise<readonly ResolvedAddress[]> {
  const resolver = new Resolver({ timeout: 2000, tries: 2 });
  return Promise.allSettled([resolver.resolve4(hostname), resolver.resolve6(hostname)]).then(([v4, v6]) => {
    const addresses: ResolvedAddress[] = [];
    if (v4.status === "fulfilled") for (const address of v4.value) addresses.push({ address, family: 4 });
    if (v6.status === "fulfilled") for (const address of v6.value) addresses.push({ address, family: 6 });
    if (addresses.length === 0 && v4.status === "rejected") throw v4.reason;
    return addresses;
  });
}

function quote(text: string): string {
  return JSON.stringify(text.slice(0, 253));
}
