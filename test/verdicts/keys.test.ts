import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { VerdictKeys } from "../../src/verdicts/keys.ts";

const secret = Buffer.alloc(32, 7);
const keys = new VerdictKeys(secret);
const media = { serverName: "example.org", mediaId: "abc" };

describe("VerdictKeys", () => {
  it("gives the same key for the same thing, to every instance with the secret", () => {
    expect(new VerdictKeys(Buffer.from(secret)).plainSource(media, ["download"])).toBe(keys.plainSource(media, ["download"]));
    // HMAC-SHA-256 over "plain source", "example.org", "abc" and "download", each after its length in four bytes; computed with Python.
    expect(keys.plainSource(media, ["download"])).toBe("bWI8W-Ra4kUZQXklkC87209mZIwmpc66twwCFId9uPI");
    // The same over "plain source for an audience" and "für alle" before the others: the length is that of the UTF-8.
    expect(keys.plainSource(media, ["download"], "für alle")).toBe("hZhqmifFFuKNo5hdRrkJ5cR2QrGhvtddkR3_PBDp6lA");
  });

  it("tells apart what differs in any part, and where parts are cut", () => {
    const attachment = { sha256: randomBytes(32), key: randomBytes(32), iv: randomBytes(16) };
    const all = [
      keys.plainSource(media, ["download"]),
      keys.plainSource(media, ["thumbnail", "32", "32", "crop"]),
      keys.plainSource(media, ["thumbnail", "323", "2", "crop"]),
      keys.plainSource(media, ["download"], "scope"),
      keys.plainSource(media, []),
      keys.plainSource(media, [""]),
      keys.plainSource({ serverName: "example.or", mediaId: "gabc" }, ["download"]),
      keys.plainSource({ serverName: "example.org", mediaId: "abcdownload" }, []),
      keys.encryptedSource(attachment),
      keys.encryptedSource(attachment, "scope"),
      keys.encryptedSource({ ...attachment, key: randomBytes(32) }),
      keys.encryptedSource({ ...attachment, iv: randomBytes(16) }),
      keys.encryptedSource({ ...attachment, sha256: randomBytes(32) }),
      keys.content(attachment.sha256, "policy"),
      keys.content(attachment.sha256, "policy", "audience"),
      keys.content(attachment.sha256, "policy 2"),
      keys.content(randomBytes(32), "policy"),
      new VerdictKeys(randomBytes(32)).content(attachment.sha256, "policy"),
    ];
    expect(new Set(all).size).toBe(all.length);
    for (const key of all) expect(key).toMatch(/^[\w-]{43}$/);
  });

  it("refuses a secret that could be guessed", () => {
    expect(() => new VerdictKeys(Buffer.from("short"))).toThrow(RangeError);
  });
});
