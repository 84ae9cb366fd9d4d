import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { MediaHashes, TAIL_SIZE, bodyOf, mediaId, sizeOf, tailOf } from "../../bench/media.ts";

function bytesOf(id: string): Buffer {
  return Buffer.concat([...bodyOf(sizeOf(id) ?? 0), tailOf(id)]);
}

describe("media of the benchmark", () => {
  it.each([TAIL_SIZE, TAIL_SIZE + 1, 10_240, 4 * 1024 * 1024 + TAIL_SIZE, 9_000_000])(
    "of %i bytes has that size and the hash that is told of it",
    (size) => {
      const id = mediaId(size, "0123abcd", 1_234_567);
      const bytes = bytesOf(id);
      expect(bytes.length).toBe(size);
      expect(new MediaHashes(size).of(id)).toEqual(createHash("sha256").update(bytes).digest());
    },
  );

  it("is never the same twice", () => {
    const ids = [mediaId(100, "a", 1), mediaId(100, "a", 11), mediaId(100, "b", 1), mediaId(101, "a", 1)];
    expect(new Set(ids.map((id) => bytesOf(id).toString("hex"))).size).toBe(ids.length);
  });

  it.each(["", "x", "31-a-1", "0-a-1", "-5-a-1", "1e3-a-1", "99999999999999-a-1", `100-${"a".repeat(40)}-1`, "100-a/../b"])(
    "%j names none",
    (id) => {
      expect(sizeOf(id)).toBeUndefined();
    },
  );
});
