import { describe, expect, it } from "vitest";
import { parseTarget } from "../../../icap/client/target.ts";
import { IcapService } from "../../../icap/index.ts";

const url = (given: string): string => new IcapService({ url: given }).url;

describe("an ICAP URL", () => {
  it.each([
    ["icap://av.example/avscan", "icap://av.example:1344/avscan"],
    ["icap://av.example:11344/av/respmod?a=b&c=d", "icap://av.example:11344/av/respmod?a=b&c=d"],
    ["icap://127.0.0.1", "icap://127.0.0.1:1344/"],
    ["icap://[::1]:1345/x", "icap://[::1]:1345/x"],
    ["icap://c_icap/x", "icap://c_icap:1344/x"],
    ["icaps://av.example/avscan", "icaps://av.example:11344/avscan"],
    ["ICAPS://[::1]:1344/avscan?a=b", "icaps://[::1]:1344/avscan?a=b"],
  ])("%s is taken", (given, expected) => {
    expect(url(given)).toBe(expected);
  });

  it.each([
    "",
    "av.example",
    "http://av.example/x",
    "https://av.example/x",
    "icapss://av.example/x",
    "icaps:av.example/x",
    "icaps://user:secret@av.example/x",
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

describe("a URL without a path", () => {
  it.each([
    ["icap://a", "/avscan", "icap://a:1344/avscan"],
    ["icap://a", "/virus_scan?force=on", "icap://a:1344/virus_scan?force=on"],
    ["icaps://[::1]:5", "avscan", "icaps://[::1]:5/avscan"],
    ["icap://a?mode=simple", "/virus_scan?force=on", "icap://a:1344/virus_scan?mode=simple"],
    ["icap://a/", "/avscan", "icap://a:1344/"],
    ["icap://a/x", "/avscan?force=on", "icap://a:1344/x"],
  ])("%s gets the default, %s", (given, path, expected) => {
    expect(parseTarget(given, path).uri).toBe(expected);
  });

  it.each(["/x y", "/x\r\nEvil: 1", "/x#y", "/ä", `/${"x".repeat(3000)}`])("refuses %j as its default", (path) => {
    expect(() => parseTarget("icap://a", path)).toThrow(TypeError);
  });

  it("stays at its host, whatever its default", () => {
    expect(parseTarget("icap://a", "//evil.example/x").uri).toBe("icap://a:1344//evil.example/x");
    expect(parseTarget("icap://a", "@evil.example/x").uri).toBe("icap://a:1344/@evil.example/x");
  });
});

describe("an option out of its range is refused", () => {
  it.each([
    { maxConnections: 0 },
    { maxConnections: 1.5 },
    { reservedConnections: -1 },
    { maxWaiting: -1 },
    { timeouts: { answer: 0 } },
    { timeouts: { connect: Infinity } },
    { limits: { headerBytes: 0 } },
  ])("%o", (options) => {
    expect(() => new IcapService({ url: "icap://a/b", ...options })).toThrow(TypeError);
  });
});
