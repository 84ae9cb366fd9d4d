import { PassThrough } from "node:stream";
import { buffer } from "node:stream/consumers";
import { describe, expect, it } from "vitest";
import { MediaBody } from "../../src/media/media-body.ts";

describe("MediaBody", () => {
  it("fails when what it reads from closes without a word", async () => {
    const exchange = new PassThrough();
    const cutShort = new Error("cut short");
    const body = new MediaBody({ exchange, limit: 10, failure: () => cutShort, tooLong: () => new Error("too long") });
    exchange.write("cat");
    const read = buffer(body);
    exchange.destroy();
    await expect(read).rejects.toBe(cutShort);
  });
});
