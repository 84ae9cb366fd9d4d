import { describe, expect, it } from "vitest";
import { IcapService } from "../../../icap/index.ts";

const url = (given: string): string => new IcapService({ url: given }).url;

describe("an ICAP URL", () => {
  it.each([
    ["icap://av.example/avscan", "icap://av.example:1344/avscan"],
    ["icap://av.example:11344/av/respmod?a=b&c=d", "icap://av.example:11344/av/respmod?a=b&c=d"],
    ["icap://127.0.0.1", "icap://127.0.0.1:1344/"],
    ["icap://[::1]:1345/x", "icap://[::1]:1345/x"],
    ["icap://c_icap/x", "icap://c_icap:1344/x"],
  ])("%s is taken", (given, expected) => {
    expect(url(given)).toBe(expected);
  });

  it.each([
    "",
    "av.example",
    "http://av.example/x",
    "icaps://av.example/x",
    "icap:av.example/x",
    "icap:///x",
    "icap://:1344/x",
    "icap://user@av.example/x",
    "icap://user:secret@av.example/x",
    "icap://av.example/x#y",
    "icap://av.example/x#",
    "icap://av.example:0/x",
    "icap://av.example:65536/x",
    "icap://av.example:http/x",
    "icap://av example/x",
    "icap://av.example/x y",
    "icap://av.example/x\r\nEvil: 1",
    "icap://av.example/\tx",
    "icap://av%0d%0a.example/x",
    "icap://-av.example/x",
    "icap://äv.example/x",
    `icap://av.example/${"x".repeat(3000)}`,
  ])("%j is refused", (given) => {
    expect(() => url(given)).toThrow(TypeError);
  });

  it("that is refused is not repeated: it may hold a password", () => {
    expect(() => url("icap://user:secret@av.example/x")).toThrow(/^(?!.*secret).*$/);
  });
});

describe("an option out of its range is refused", () => {
  it.each([
    { maxConnections: 0 },
    { maxConnections: 1.5 },
    { reservedConnections: -1 },
    { timeouts: { answer: 0 } },
    { timeouts: { connect: Infinity } },
    { limits: { headerBytes: 0 } },
  ])("%o", (options) => {
    expect(() => new IcapService({ url: "icap://a/b", ...options })).toThrow(TypeError);
  });
});
