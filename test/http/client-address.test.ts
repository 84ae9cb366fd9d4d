import { describe, expect, it } from "vitest";
import { ClientAddresses, networkOf } from "../../src/http/client-address.ts";

describe("the address of a client", () => {
  const addresses = new ClientAddresses(["127.0.0.1", "10.0.0.0/8", "2001:db8:1::/48", "::1"]);

  it.each([
    ["a peer that is nobody's proxy speaks for itself alone", "203.0.113.5", "198.51.100.1", "203.0.113.5"],
    ["one without the header is who it is", "203.0.113.5", undefined, "203.0.113.5"],
    ["a trusted proxy's word is taken", "127.0.0.1", "198.51.100.1", "198.51.100.1"],
    ["of several hops, the rightmost that is not trusted", "127.0.0.1", "1.1.1.1, 198.51.100.1, 10.1.2.3", "198.51.100.1"],
    ["what stands left of it can have been made up", "10.9.9.9", "127.0.0.1, 10.0.0.1, 198.51.100.1", "198.51.100.1"],
    ["one past the end of a range is not trusted", "11.0.0.1", "198.51.100.1", "11.0.0.1"],
    ["a peer on a dual-stack socket", "::ffff:127.0.0.1", "198.51.100.1", "198.51.100.1"],
    ["the same address, whichever way a hop is written", "127.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"],
    ["a trusted hop in that form", "::1", "198.51.100.1, ::ffff:10.2.3.4", "198.51.100.1"],
    ["IPv6 ranges", "2001:db8:1:2::3", "2001:db8:ffff::1", "2001:db8:ffff::1"],
    ["IPv6 beyond the range", "2001:db8:2::1", "198.51.100.1", "2001:db8:2::1"],
    ["an IPv6 client behind an IPv4 proxy", "10.0.0.1", "2001:db8:ffff::1", "2001:db8:ffff::1"],
    ["only proxies all the way: the first of them", "127.0.0.1", "10.0.0.7, 10.0.0.8", "10.0.0.7"],
    ["an empty header", "127.0.0.1", "", "127.0.0.1"],
    ["garbage is no address: the proxy that passed it on", "127.0.0.1", "unknown", "127.0.0.1"],
    ["garbage to the left of an address does no harm", "127.0.0.1", "<script>, 198.51.100.1", "198.51.100.1"],
    ["garbage behind a trusted hop", "127.0.0.1", "198.51.100.1, x, 10.0.0.1", "10.0.0.1"],
    ["a name is garbage too", "127.0.0.1", "localhost", "127.0.0.1"],
    ["a connection that has ended has none", undefined, "198.51.100.1", ""],
  ])("%s", (_, peer, forwardedFor, address) => {
    expect(addresses.resolve(peer, forwardedFor)).toBe(address);
  });

  it("nobody is trusted unless the operator says so", () => {
    expect(new ClientAddresses([]).resolve("127.0.0.1", "198.51.100.1")).toBe("127.0.0.1");
  });
});

describe("what one client has of addresses", () => {
  it("is its /64 with IPv6, and itself otherwise", () => {
    expect(networkOf("2001:db8:1:2::1")).toBe(networkOf("2001:db8:1:2:ffff::9"));
    expect(networkOf("2001:db8:1:2::1")).not.toBe(networkOf("2001:db8:1:3::1"));
    expect(networkOf("fe80::1%eth0")).toBe(networkOf("fe80::2"));
    expect([networkOf("192.0.2.1"), networkOf("")]).toEqual(["192.0.2.1", ""]);
  });
});
