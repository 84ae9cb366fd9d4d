import { PassThrough, Readable } from "node:stream";
import { describe, expect, it } from "vitest";
import { readBounded } from "../../src/media/bounded-body.ts";

const never = new AbortController().signal;

describe("readBounded", () => {
  it("reads a body of exactly the limit, and no more than that", async () => {
    expect(await readBounded(Readable.from([Buffer.from("ab"), Buffer.from("cd")]), 4, never)).toEqual(Buffer.from("abcd"));
    const longer = Readable.from([Buffer.from("ab"), Buffer.from("cde")]);
    expect(await readBounded(longer, 4, never)).toBeUndefined();
    expect(longer.destroyed).toBe(true);
  });

  it("ends a body that stalls", async () => {
    const stalled = new PassThrough();
    stalled.write("a");
    expect(await readBounded(stalled, 4, never, 10)).toBeUndefined();
    expect(stalled.destroyed).toBe(true);
  });

  it("ends with the signal's reason", async () => {
    const abort = new AbortController();
    const body = new PassThrough({ signal: abort.signal });
    const read = readBounded(body, 4, abort.signal);
    const reason = new Error("the client left");
    abort.abort(reason);
    await expect(read).rejects.toBe(reason);
  });
});
