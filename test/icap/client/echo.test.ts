import { createHash } from "node:crypto";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ReturnedBody, beginsWith } from "../../../icap/client/echo.ts";

describe("a body that came back", () => {
  it("is told by its length and the SHA-256 of as much as was sent, in whatever pieces it came", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 9 })), fc.integer({ min: -20, max: 3 }), (pieces, more) => {
        const whole = Buffer.concat(pieces);
        const sent = Math.max(0, whole.length + more);
        const body = new ReturnedBody(sent);
        for (const piece of pieces) body.push(piece);
        expect(body.size).toBe(whole.length);
        expect(body.digest()).toEqual(createHash("sha256").update(whole.subarray(0, sent)).digest());
      }),
    );
  });
});

async function* pieces(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

describe("a file", () => {
  const signal = new AbortController().signal;

  it("begins with its first bytes, however it is read, and with no others", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ minLength: 1, maxLength: 40 }),
        fc.uint8Array({ minLength: 1, maxLength: 50 }),
        fc.integer({ min: 1, max: 9 }),
        fc.boolean(),
        async (file, other, piece, same) => {
          const start = Buffer.from(same ? file.subarray(0, other.length) : other);
          const sha256 = createHash("sha256").update(start).digest();
          const expected = Buffer.from(file).subarray(0, start.length).equals(start);
          expect(await beginsWith(pieces(Buffer.from(file), piece), start.length, sha256, signal)).toBe(expected);
        },
      ),
    );
  });

  it("is read no longer than its reader wants", async () => {
    const file = pieces(Buffer.alloc(10), 1);
    const stopped = AbortSignal.abort(new Error("enough"));
    await expect(beginsWith(file, 5, Buffer.alloc(32), stopped)).rejects.toThrow("enough");
    expect(await file.next()).toEqual({ value: undefined, done: true });
  });
});
