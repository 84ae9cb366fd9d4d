import { deflateSync } from "node:zlib";
import { createCipheriv } from "node:crypto";
import { afterAll, describe, expect, it } from "vitest";
import { createTypeDetector } from "../../src/media/mime.ts";
import { isOpaque } from "../../src/media/opacity.ts";

const types = createTypeDetector();
afterAll(() => types[Symbol.asyncDispose]());

async function opaque(bytes: Buffer): Promise<boolean> {
  return isOpaque(bytes, await types.detect(bytes));
}

/** Ciphertext, the same each time: random bytes as far as anybody can tell. */
function ciphertext(seed: number, size: number): Buffer {
  const cipher = createCipheriv(
    "aes-256-ctr",
    Buffer.alloc(32, 7),
    Buffer.alloc(16)
      .fill(seed, 0, 4)
      .fill(seed >> 8, 4, 8),
  );
  return cipher.update(Buffer.alloc(size));
}

describe("what nobody can tell", () => {
  it("is ciphertext, though libmagic knows a name for one in eighty", async () => {
    const names = new Set<string>();
    for (let seed = 0; seed < 1500; seed += 1) {
      const bytes = ciphertext(seed, 5000);
      names.add((await types.detect(bytes)).mime);
      expect(await opaque(bytes), `seed ${seed}`).toBe(true);
    }
    // Or nothing was tried.
    expect(names).toContain("application/vnd.microsoft.portable-executable");
  });

  it.each([
    ["a COM program's jump before random bytes", Buffer.concat([Buffer.of(0xe9), ciphertext(1, 5000)])],
    ["a zlib stream", deflateSync(ciphertext(1, 5000))],
    ["few bytes that begin as MP3 does", Buffer.concat([Buffer.of(0xff, 0xfb, 0x90, 0x64), ciphertext(3, 200)])],
    ["control characters", Buffer.of(1, 2, 3)],
    ["a byte that no text has", Buffer.from("abc\u0000")],
  ])("is %s", async (_name, bytes) => {
    expect(await opaque(bytes)).toBe(true);
  });
});

describe("what somebody can tell", () => {
  it.each([
    ["an empty file", Buffer.alloc(0)],
    ["a letter", Buffer.from("a")],
    ["a word that is no ASCII", Buffer.from("é")],
    ["a word that is cut within a letter", Buffer.from("né").subarray(0, 2)],
    ["text in UTF-16", Buffer.from("\uFEFFtext of some length", "utf16le")],
    ["a program", Buffer.concat([Buffer.from("MZ\u0090\0\u0003\0\0\0", "latin1"), Buffer.alloc(2000), ciphertext(4, 3000)])],
    ["MP3 with a large tag", Buffer.concat([Buffer.from("ID3\u0003\0\0\0\0\u001fv", "latin1"), Buffer.alloc(1500), ciphertext(5, 3000)])],
    ["a gzip", Buffer.concat([Buffer.of(0x1f, 0x8b, 8, 0), ciphertext(6, 5000)])],
    ["a zip", Buffer.concat([Buffer.from("PK\u0003\u0004\u0014\0\0\0\u0008\0", "latin1"), ciphertext(7, 5000)])],
    ["a JPEG", Buffer.concat([Buffer.of(0xff, 0xd8, 0xff, 0xe0, 0, 16), Buffer.from("JFIF\0"), ciphertext(8, 5000)])],
  ])("is %s", async (_name, bytes) => {
    expect(await opaque(bytes)).toBe(false);
  });
});
