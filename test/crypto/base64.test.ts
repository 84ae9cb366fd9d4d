import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeBase64, decodeBase64UpTo, encodeBase64 } from "../../src/crypto/base64.ts";

describe("decodeBase64", () => {
  it("reads both alphabets, mixed as well, with the whole padding or none", () => {
    const bytes = Buffer.from([0xfb, 0xff, 0xbf, 0xfe]);
    for (const text of ["+/+//g", "-_-__g", "+_-/_g", "+/+//g==", "-_-__g=="]) expect(decodeBase64(text, 4)).toEqual(bytes);
  });

  it("gives back what any encoder wrote", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (array) => {
        const bytes = Buffer.from(array);
        for (const text of [bytes.toString("base64"), bytes.toString("base64url"), encodeBase64(bytes)]) {
          expect(decodeBase64(text, bytes.length)).toEqual(bytes);
          expect(decodeBase64UpTo(text, 100)).toEqual(bytes);
        }
      }),
    );
  });

  it.each([
    ["a character of neither alphabet", "AAA*"],
    ["white space inside", "AA AA"],
    ["a line feed at the end", "AAAA\n"],
    ["a NUL", "AAAA\0"],
    ["a letter beyond ASCII that ends in the same byte", "\u{141}AAA"],
    ["padding in the middle", "AA==AAAA"],
    ["too much padding", "AAAA===="],
    ["half of the padding", "AA="],
    ["padding that is not due", "AAA=="],
    ["padding alone", "="],
    ["a character that is left over", "AAAAA"],
  ])("refuses %s", (_name, text) => {
    expect(decodeBase64UpTo(text, 64)).toBeUndefined();
  });

  it("refuses whatever Buffer.from reads but an encoder would not have written, save for bits left over", () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom("A", "Q", "g", "w", "-", "_", "+", "/", "=", " ", "\n"), maxLength: 12 }), (text) => {
        const bytes = decodeBase64UpTo(text, 64);
        if (bytes === undefined) return;
        const plain = text.replaceAll("-", "+").replaceAll("_", "/");
        const padded = bytes.toString("base64");
        const unpadded = encodeBase64(bytes);
        const withoutLast = (s: string): string => s.slice(0, Math.max(0, unpadded.length - 1)) + s.slice(unpadded.length);
        expect([padded, unpadded].map(withoutLast)).toContain(withoutLast(plain));
      }),
      { numRuns: 2000 },
    );
  });

  it("drops the bits left over in the last character, as clients' decoders do", () => {
    expect(decodeBase64("AB", 1)).toEqual(Buffer.from([0]));
    expect(decodeBase64("/x==", 1)).toEqual(Buffer.from([0xff]));
  });

  it("wants exactly that many bytes", () => {
    const key = Buffer.alloc(32, 7);
    expect(decodeBase64(key.toString("base64"), 32)).toEqual(key);
    for (const size of [0, 16, 31, 33]) expect(decodeBase64(key.toString("base64"), size)).toBeUndefined();
  });

  it("takes no more than the limit", () => {
    expect(decodeBase64UpTo(encodeBase64(Buffer.alloc(64)), 64)).toHaveLength(64);
    expect(decodeBase64UpTo(encodeBase64(Buffer.alloc(65)), 64)).toBeUndefined();
    expect(decodeBase64UpTo("A".repeat(1_000_000), 64)).toBeUndefined();
  });
});
