import { createHmac } from "node:crypto";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { KeyedDigest } from "../../src/verdicts/keyed-digest.ts";

/** A text or bytes behind their length. */
function framed(part: string | Buffer): Buffer {
  const bytes = Buffer.from(part);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

const bytes = fc.uint8Array({ maxLength: 200 }).map((array) => Buffer.from(array));
const text = fc.string({ unit: "binary", maxLength: 80 });

describe("a keyed digest", () => {
  it("is HMAC-SHA-256, as Node makes it, under keys shorter and longer than a block", () => {
    fc.assert(
      fc.property(bytes, text, fc.array(fc.oneof(text, bytes), { maxLength: 5 }), (secret, purpose, parts) => {
        const digest = new KeyedDigest(secret);
        const hmac = createHmac("sha256", secret).update(Buffer.concat([purpose, ...parts].map(framed)));
        const expected = hmac.digest();
        expect(digest.bytes(purpose, parts)).toEqual(expected);
        expect(digest.name(purpose, parts)).toBe(expected.toString("base64url"));
      }),
    );
  });

  it("does not change with the next one", () => {
    const digest = new KeyedDigest(Buffer.alloc(32, 7));
    const first = digest.bytes("purpose", ["one"]);
    const copy = Buffer.from(first);
    digest.bytes("purpose", ["another"]);
    expect(first).toEqual(copy);
  });
});
