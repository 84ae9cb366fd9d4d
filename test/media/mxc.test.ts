import { describe, expect, it } from "vitest";
import { GatewayError } from "../../src/errors.ts";
import { parseMxc, parseMxcUrl } from "../../src/media/mxc.ts";

const GOOD_SERVERS = [
  "example.org",
  "EXAMPLE.org",
  "matrix.example.org:8448",
  "localhost",
  "a",
  "xn--mnchen-3ya.example",
  "1.2.3.4",
  "1.2.3.4:1234",
  "[::1]",
  "[2001:db8::1]:8448",
  "[::ffff:1.2.3.4]",
  `${"a".repeat(63)}.${"b".repeat(63)}.${"c".repeat(63)}.${"d".repeat(38)}`,
];

const BAD_SERVERS = [
  "",
  ".",
  "..",
  "../..",
  "a..b",
  ".example.org",
  "example.org/..",
  "example.org/",
  "example.org?x",
  "example.org#x",
  "user@example.org",
  "example.org\\",
  "example.org%2f",
  "%2e%2e",
  "exa mple.org",
  "exa_mple.org",
  "example.org\0",
  "example.org\r\nX: y",
  "exämple.org",
  "example.org:",
  "example.org:0",
  "example.org:65536",
  "example.org:123456",
  "example.org:80:80",
  "example.org:+80",
  "::1",
  "[::1",
  "[]",
  "[:]",
  "[::1%25eth0]",
  "[::1]x",
  "[1.2.3.4]",
  "[[::1]]",
  "a".repeat(231),
];

const BAD_IDS = ["", ".", "..", "a.b", "a/b", "../a", "%2e", "a%00", "a\0", "a?b", "a#b", "a b", "a\n", "ä", "a".repeat(256)];

describe("parseMxc", () => {
  it.each(GOOD_SERVERS)("takes the server name %s as it is", (serverName) => {
    expect(parseMxc(serverName, "abc-DEF_123")).toEqual({ serverName, mediaId: "abc-DEF_123" });
  });

  it.each(BAD_SERVERS)("refuses the server name %j", (serverName) => {
    expect(() => parseMxc(serverName, "abc")).toThrow(expect.objectContaining({ code: "bad_media_id", status: 400 }));
  });

  it.each(BAD_IDS)("refuses the media ID %j", (mediaId) => {
    expect(() => parseMxc("example.org", mediaId)).toThrow(GatewayError);
  });

  it("takes a media ID of 255 characters", () => {
    expect(parseMxc("example.org", "a".repeat(255)).mediaId).toHaveLength(255);
  });
});

describe("parseMxcUrl", () => {
  it("takes an mxc URI apart", () => {
    expect(parseMxcUrl("mxc://example.org:8448/abc")).toEqual({ serverName: "example.org:8448", mediaId: "abc" });
  });

  it.each([
    "",
    "mxc://",
    "mxc://example.org",
    "mxc://example.org/",
    "mxc:///abc",
    "mxc://example.org/a/b",
    "https://example.org/abc",
    "mxc://../abc",
    "mxc://example.org/abc?x",
    "mxc://example.org/abc\n",
    " mxc://example.org/abc",
  ])("knows %j for something else", (url) => {
    expect(parseMxcUrl(url)).toBeUndefined();
  });
});
