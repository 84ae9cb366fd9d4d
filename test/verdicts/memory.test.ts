import { describe, expect, it } from "vitest";
import { MemoryVerdictStore } from "../../src/verdicts/memory.ts";
import type { SourceRecord, VerdictRecord } from "../../src/verdicts/store.ts";

const clean: VerdictRecord = { outcome: "clean", stamps: { antivirus: { tag: "t", at: 1 } } };
const infected: VerdictRecord = { outcome: "infected", stamps: { antivirus: { tag: "t", at: 1 } }, threat: "Eicar", scanner: "antivirus" };
const forbidden: VerdictRecord = { outcome: "type_forbidden", mime: "text/html" };

function source(pieces = 1): SourceRecord {
  return { content: "c".repeat(43), size: pieces * 1024 * 1024, pieces: Buffer.alloc(32 * pieces, 1) };
}

function storeAt(clock: { now: number }, options: { maxEntries?: number; maxBytes?: number; clean?: number; infected?: number } = {}) {
  const ttl = { clean: options.clean ?? 1000, infected: options.infected ?? 5000 };
  return new MemoryVerdictStore({ maxEntries: 100, ...options, ttl, now: () => clock.now });
}

describe("MemoryVerdictStore", () => {
  it("gives back what it was told, and nothing else", async () => {
    await using store = storeAt({ now: 1e12 });
    await store.rememberVerdict("a", clean);
    await store.rememberVerdict("b", forbidden);
    await store.rememberSource("a", source());
    expect(await store.verdict("a")).toEqual(clean);
    expect(await store.verdict("b")).toEqual(forbidden);
    expect(await store.verdict("c")).toBeUndefined();
    expect(await store.source("a")).toEqual(source());
    expect(await store.source("b")).toBeUndefined();
    await store.forgetSource("a");
    expect(await store.source("a")).toBeUndefined();
    expect(await store.verdict("a")).toEqual(clean);
    expect(store.health()).toEqual({ degraded: false, problems: [] });
  });

  it("forgets each kind after its own time", async () => {
    const clock = { now: 1e12 };
    await using store = storeAt(clock);
    await store.rememberVerdict("clean", clean);
    await store.rememberVerdict("infected", infected);
    await store.rememberSource("source", source());
    clock.now += 1001;
    expect(await store.verdict("clean")).toBeUndefined();
    expect(await store.verdict("infected")).toEqual(infected);
    expect(await store.source("source")).toBeDefined();
    clock.now += 4000;
    expect(await store.verdict("infected")).toBeUndefined();
    expect(await store.source("source")).toBeUndefined();
  });

  it("keeps nothing whose time is 0, not even the older record", async () => {
    const clock = { now: 1e12 };
    await using store = storeAt(clock, { infected: 0 });
    await store.rememberVerdict("a", clean);
    await store.rememberVerdict("a", infected);
    expect(await store.verdict("a")).toBeUndefined();
  });

  it("drops the one used longest ago past its number of entries", async () => {
    await using store = storeAt({ now: 1e12 }, { maxEntries: 2 });
    await store.rememberVerdict("a", clean);
    await store.rememberVerdict("b", clean);
    await store.verdict("a");
    await store.rememberVerdict("c", clean);
    expect(await store.verdict("b")).toBeUndefined();
    expect(await store.verdict("a")).toEqual(clean);
    expect(await store.verdict("c")).toEqual(clean);
  });

  it("is bounded by bytes as well, whatever the pieces weigh", async () => {
    await using store = storeAt({ now: 1e12 }, { maxBytes: 80_000 });
    for (let n = 0; n < 10; n++) await store.rememberSource(`large ${n}`, source(300));
    const kept = await Promise.all(Array.from({ length: 10 }, (_, n) => store.source(`large ${n}`)));
    expect(kept.filter((record) => record !== undefined)).toHaveLength(3);
    await store.rememberSource("too large for it", source(100_000));
    expect(await store.source("too large for it")).toBeUndefined();
  });

  it("is not changed by what the caller does to its buffer", async () => {
    await using store = storeAt({ now: 1e12 });
    const record = source();
    await store.rememberSource("a", record);
    record.pieces.fill(9);
    expect(await store.source("a")).toEqual(source());
  });

  it("takes over another store's knowledge until it expires there, but never over its own", async () => {
    const clock = { now: 1e12 };
    await using store = storeAt(clock);
    expect(store.adoptVerdict("a", clean, clock.now + 10)).toEqual(clean);
    clock.now += 11;
    expect(await store.verdict("a")).toBeUndefined();
    expect(store.adoptVerdict("a", clean, clock.now + 1e9)).toEqual(clean);
    clock.now += 1001;
    expect(await store.verdict("a")).toBeUndefined();
    await store.rememberVerdict("a", infected);
    expect(store.adoptVerdict("a", clean, clock.now + 1e9)).toEqual(infected);
    expect(await store.verdict("a")).toEqual(infected);
  });
});
