import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Patience } from "../../src/scan/replica-patience.ts";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

/** A minute before each chunk. */
async function* slow(chunks: number): AsyncGenerator<Uint8Array> {
  for (let chunk = 0; chunk < chunks; chunk += 1) {
    vi.advanceTimersByTime(60_000);
    yield Buffer.alloc(1);
  }
}

async function* pieces(count: number): AsyncGenerator<Uint8Array> {
  for (let n = 0; n < count; n += 1) yield Buffer.alloc(1);
}

describe("the patience with a replica", () => {
  it("runs out once when something is done about it, else again and again", () => {
    let times = 0;
    using _patience = new Patience(5_000, () => (times += 1) === 3);
    vi.advanceTimersByTime(4_999);
    expect(times).toBe(0);
    vi.advanceTimersByTime(1);
    expect(times).toBe(1);
    vi.advanceTimersByTime(60_000);
    expect(times).toBe(3);
  });

  it("that could do nothing runs out ever less often", () => {
    const times: number[] = [];
    using _patience = new Patience(5_000, () => times.push(Date.now() - started) < 0);
    const started = Date.now();
    vi.advanceTimersByTime(300_000);
    expect(times).toEqual([5, 6, 8, 12, 20, 36, 68, 128, 188, 248].map((seconds) => seconds * 1000));
  });

  it("is not used up by media that arrives slowly, but by who does not take it", async () => {
    let times = 0;
    using patience = new Patience(5_000, () => (times += 1) > 0);
    const seen: number[] = [];
    for await (const _bytes of patience.watch(slow(3))) {
      seen.push(times);
      vi.advanceTimersByTime(2_000);
    }
    // Only what the reader took: 2 s for each chunk.
    expect(seen).toEqual([0, 0, 0]);
    expect(times).toBe(1);
  });

  it("passes on that the source is to be ended, or has failed, and time then goes on", async () => {
    let times = 0;
    using patience = new Patience(5_000, () => (times += 1) > 0);
    let ended = false;
    async function* source(): AsyncGenerator<Uint8Array> {
      try {
        yield Buffer.alloc(1);
        throw new Error("the media is gone");
      } finally {
        ended = true;
      }
    }
    for await (const _bytes of patience.watch(source())) break;
    expect(ended).toBe(true);
    const failing = patience.watch(source());
    await failing.next();
    await expect(failing.next()).rejects.toThrow("the media is gone");
    vi.advanceTimersByTime(5_000);
    expect(times).toBe(1);
  });

  it("has one timer, however often the source is waited for", async () => {
    using patience = new Patience(5_000, () => true);
    const timers = vi.spyOn(globalThis, "setTimeout");
    for await (const _bytes of patience.watch(pieces(100))) vi.advanceTimersByTime(1);
    expect(timers).not.toHaveBeenCalled();
  });

  it("never runs out after its end", async () => {
    const ranOut = vi.fn<() => boolean>(() => false);
    const patience = new Patience(5_000, ranOut);
    const reader = patience.watch(slow(1));
    await reader.next();
    patience[Symbol.dispose]();
    await reader.next();
    vi.advanceTimersByTime(60_000);
    expect(ranOut).not.toHaveBeenCalled();
  });
});
