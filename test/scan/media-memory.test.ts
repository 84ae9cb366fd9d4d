import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { MediaMemory } from "../../src/scan/media-memory.ts";
import { PieceHasher } from "../../src/scan/pieces.ts";
import type { SourceRecord } from "../../src/verdicts/store.ts";

const HEADERS = { contentType: "image/png", contentDisposition: undefined };
const KIB = 1024;
const MXC = { serverName: "example.org", mediaId: "one" };

function recordOf(bytes: Buffer): SourceRecord {
  const hasher = new PieceHasher();
  hasher.update(bytes);
  return { content: "content", digest: "digest", size: bytes.length, pieces: hasher.finish().pieces };
}

async function* chunks(bytes: Buffer, failure?: Error): AsyncGenerator<Buffer> {
  for (let from = 0; from < bytes.length; from += 1000) yield bytes.subarray(from, from + 1000);
  if (failure !== undefined) throw failure;
}

async function pass(memory: MediaMemory, key: string, bytes: Buffer): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(memory.keep(key, MXC, recordOf(bytes), HEADERS, chunks(bytes))));
}

function held(memory: MediaMemory, key: string, bytes: Buffer): boolean {
  using media = memory.get(key, MXC, recordOf(bytes));
  return media?.bytes.equals(bytes) ?? false;
}

describe("media in memory", () => {
  it("is there once all of it has passed, unchanged, and is that of its record alone", async () => {
    const memory = new MediaMemory({ bytes: 100 * KIB, largest: 50 * KIB });
    const bytes = randomBytes(10_500);
    expect((await pass(memory, "a", bytes)).equals(bytes)).toBe(true);
    expect(held(memory, "a", bytes)).toBe(true);
    expect(held(memory, "b", bytes)).toBe(false);
    const other = randomBytes(10_500);
    expect(memory.get("a", MXC, recordOf(other))).toBeUndefined();
    // What the source holds now takes its place.
    await pass(memory, "a", other);
    expect([held(memory, "a", other), held(memory, "a", bytes)]).toEqual([true, false]);
    expect(memory.taken).toBe(10_500 + KIB);
  });

  it("is not there when it failed, was given up, or was never asked for", async () => {
    const memory = new MediaMemory({ bytes: 100 * KIB, largest: 50 * KIB });
    const bytes = randomBytes(10_500);
    const failing = memory.keep("a", MXC, recordOf(bytes), HEADERS, chunks(bytes, new Error("changed")));
    await expect(Array.fromAsync(failing)).rejects.toThrow("changed");
    for await (const _chunk of memory.keep("a", MXC, recordOf(bytes), HEADERS, chunks(bytes))) break;
    memory.keep("a", MXC, recordOf(bytes), HEADERS, chunks(bytes));
    expect([held(memory, "a", bytes), memory.taken]).toEqual([false, 0]);
  });

  it("makes room for what comes later, the one used longest ago first, and holds nothing that is too large", async () => {
    const memory = new MediaMemory({ bytes: 30 * KIB, largest: 20 * KIB });
    const [a, b, c] = [randomBytes(10 * KIB), randomBytes(10 * KIB), randomBytes(10 * KIB)];
    await pass(memory, "a", a);
    await pass(memory, "b", b);
    expect(held(memory, "a", a)).toBe(true);
    await pass(memory, "c", c);
    expect([held(memory, "a", a), held(memory, "b", b), held(memory, "c", c)]).toEqual([true, false, true]);
    const large = randomBytes(20 * KIB + 1);
    expect((await pass(memory, "d", large)).equals(large)).toBe(true);
    expect([held(memory, "d", large), held(memory, "a", a)]).toEqual([false, true]);
  });

  it("gives up nothing for what does not fit beside what is in use", async () => {
    const memory = new MediaMemory({ bytes: 30 * KIB, largest: 20 * KIB });
    const [small, used, large] = [randomBytes(2 * KIB), randomBytes(18 * KIB), randomBytes(15 * KIB)];
    await pass(memory, "small", small);
    await pass(memory, "used", used);
    using _reader = memory.get("used", MXC, recordOf(used));
    await pass(memory, "large", large);
    expect([held(memory, "small", small), held(memory, "large", large)]).toEqual([true, false]);
  });

  it("never takes more than it may, whoever is still reading or on the way: then others are not held", async () => {
    const memory = new MediaMemory({ bytes: 25 * KIB, largest: 20 * KIB });
    const [a, b] = [randomBytes(10 * KIB), randomBytes(10 * KIB)];
    await pass(memory, "a", a);
    const reader = memory.get("a", MXC, recordOf(a));
    const slow = memory.keep("b", MXC, recordOf(b), HEADERS, chunks(b))[Symbol.asyncIterator]();
    await slow.next();
    const c = randomBytes(10 * KIB);
    expect((await pass(memory, "c", c)).equals(c)).toBe(true);
    expect([held(memory, "c", c), memory.taken]).toEqual([false, 22 * KIB]);
    reader?.[Symbol.dispose]();
    reader?.[Symbol.dispose]();
    await pass(memory, "c", c);
    expect([held(memory, "c", c), held(memory, "a", a), memory.taken]).toEqual([true, false, 22 * KIB]);
    await slow.return?.();
    expect(memory.taken).toBe(11 * KIB);
  });

  it("holds nothing where it has no room at all", async () => {
    const memory = new MediaMemory({ bytes: 0, largest: 1 << 20 });
    await pass(memory, "a", Buffer.from("a"));
    expect(memory.taken).toBe(0);
  });
});
