/** Who is at the other end, seen through the proxies that the operator trusts. */
import { BlockList, isIP } from "node:net";
import ipaddr from "ipaddr.js";

export class ClientAddresses {
  readonly #trusted = new BlockList();

  /** @param trustedProxies addresses and CIDR ranges whose `X-Forwarded-For` is believed. */
  constructor(trustedProxies: readonly string[]) {
    for (const proxy of trustedProxies) {
      const [address = "", prefix] = proxy.split("/");
      const family = isIP(address) === 6 ? "ipv6" : "ipv4";
      if (prefix === undefined) this.#trusted.addAddress(address, family);
      else this.#trusted.addSubnet(address, Number(prefix), family);
    }
  }

  /** The nearest address that is not a trusted proxy's own: what stands left of it in the header, anybody can have written. */
  resolve(peer: string | undefined, forwardedFor: string | undefined): string {
    let address = unmapped(peer ?? "");
    if (forwardedFor === undefined) return address;
    const hops = forwardedFor.split(",").map((hop) => unmapped(hop.trim()));
    while (this.#isTrusted(address)) {
      const previous = hops.pop();
      if (previous === undefined || isIP(previous) === 0) return address;
      address = previous;
    }
    return address;
  }

  #isTrusted(address: string): boolean {
    const family = isIP(address);
    return family !== 0 && this.#trusted.check(address, family === 6 ? "ipv6" : "ipv4");
  }
}

/** A dual-stack socket shows IPv4 peers as IPv4-mapped IPv6 addresses. */
function unmapped(address: string): string {
  return address.startsWith("::ffff:") && isIP(address.slice(7)) === 4 ? address.slice(7) : address;
}

/** What one client has of addresses: an IPv6 client may take any of its /64 at any time. What is no address stays as it is. */
export function networkOf(address: string): string {
  if (isIP(address) !== 6) return address;
  const bytes = ipaddr.IPv6.parse(address.split("%")[0] ?? "").toByteArray();
  return `${Buffer.from(bytes.slice(0, 8)).toString("hex")}/64`;
}
