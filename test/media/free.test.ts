import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { free } from "../../src/media/free.ts";

describe("free", () => {
  it("gives memory back", () => {
    const bytes = Buffer.allocUnsafeSlow(100_000);
    free(bytes);
    expect(bytes).toHaveLength(0);
    expect(bytes.buffer.detached).toBe(true);
  });

  it("leaves memory alone that something else is in", () => {
    const all = randomBytes(100_000);
    const copy = Buffer.from(all);
    free(all.subarray(50));
    free(all.subarray(0, 99_999));
    expect(all.equals(copy)).toBe(true);
    const pooled = Buffer.from("of the pool");
    free(pooled);
    expect(pooled.toString()).toBe("of the pool");
  });
});
