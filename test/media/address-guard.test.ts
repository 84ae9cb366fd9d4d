import { describe, expect, it } from "vitest";
import { addressLiteral, AddressRefusedError, guardUrl, isPublicAddress, resolveAllowed } from "../../src/media/address-guard.ts";

describe("isPublicAddress", () => {
  it.each([
    "8.8.8.8",
    "1.1.1.1",
    "2606:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8", // IPv4-mapped
    "64:ff9b::8.8.8.8", // NAT64
  ])("%s is", (address) => {
    expect(isPublicAddress(address)).toBe(true);
  });

  it.each([
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1", // IPv4-compatible
    "::8.8.8.8",
    "::ffff:127.0.0.1", // IPv4-mapped
    "::ffff:a9fe:a9fe",
    "::ffff:0:127.0.0.1", // translated, RFC 2765
    "64:ff9b::127.0.0.1", // NAT64
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::8.8.8.8", // NAT64 of the local network
    "2002:7f00:1::", // 6to4
    "2002:808:808::1",
    "2001:0:53aa:64c:0:0:f5ff:fffe", // Teredo
    "100::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "",
    "localhost",
    "0x7f.1",
    "2130706433",
    "0177.0.0.1",
  ])("%s is not", (address) => {
    expect(isPublicAddress(address)).toBe(false);
  });
});

describe("guardUrl", () => {
  it.each([
    "https://127.0.0.1/",
    "https://0x7f.1/",
    "https://0177.0.0.1/",
    "https://2130706433/",
    "https://127.1/",
    "https://127.0.0.1./",
    "https://%31%32%37.0.0.1/",
    "https://①②⑦.0.0.1/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://169.254.169.254/latest/meta-data",
    "http://example.org/",
    "ftp://example.org/",
    "https://user@example.org/",
    "https://:password@example.org/",
  ])("refuses %s", (url) => {
    expect(() => guardUrl(new URL(url), isPublicAddress)).toThrow(AddressRefusedError);
  });

  it.each(["https://example.org/", "https://example.org:8448/x", "https://8.8.8.8/", "https://[2606:4700::1111]/"])(
    "lets %s through",
    (url) => {
      expect(() => guardUrl(new URL(url), isPublicAddress)).not.toThrow();
    },
  );
});

describe("addressLiteral", () => {
  it("tells an address from a name", () => {
    expect(addressLiteral(new URL("https://[::1]:8448/"))).toBe("::1");
    expect(addressLiteral(new URL("https://0x7f.1/"))).toBe("127.0.0.1");
    expect(addressLiteral(new URL("https://example.org/"))).toBeUndefined();
  });
});

describe("resolveAllowed", () => {
  const addresses = [
    { address: "8.8.8.8", family: 4 },
    { address: "10.0.0.1", family: 4 },
  ] as const;

  it("refuses a name that has one internal address among public ones", async () => {
    await expect(resolveAllowed("example.org", () => Promise.resolve(addresses), isPublicAddress)).rejects.toThrow(AddressRefusedError);
  });
});
