import { describe, expect, it } from "vitest";
import { MemoryVerdictStore } from "../../src/verdicts/memory.ts";
import type { SourceRecord, VerdictRecord } from "../../src/verdicts/store.ts";

/** Milliseconds since the epoch. */
const NOW = 1e12;
const clean: VerdictRecord = { outcome: "clean", stamps: { antivirus: { tag: "t", at: NOW } } };
const infected: VerdictRecord = {
  outcome: "infected",
  stamps: { antivirus: { tag: "t", at: NOW } },
  threat: "Eicar",
  scanner: "antivirus",
};
const forbidden: VerdictRecord = { outcome: "type_forbidden", mime: "text/html" };

function source(pieces = 1): SourceRecord {
  return { content: "c".repeat(43), digest: "d".repeat(43), size: pieces * 1024 * 1024, pieces: Buffer.alloc(32 * pieces, 1) };
}

function storeAt(clock: { now: number }, options: { maxEntries?: number; maxBytes?: number; clean?: number; infected?: number } = {}) {
  const ttl = { clean: options.clean ?? 1000, infected: options.infected ?? 5000 };
  return new MemoryVerdictStore({ maxEntries: 100, ...options, ttl, now: () => clock.now });
}

describe("MemoryVerdictStore", () => {
  it("gives back what it was told, and nothing else", async () => {
    await using store = storeAt({ now: NOW });
    await store.rememberVerdict("a", clean);
    await store.rememberVerdict("b", forbidden);
    await store.rememberSource("a", source());
    expect(await store.verdict("a")).toMatchObject({ record: clean });
    expect(await store.verdict("b")).toMatchObject({ record: forbidden });
    expect(await store.verdict("c")).toBeUndefined();
    expect(await store.source("a")).toEqual(source());
    expect(await store.source("b")).toBeUndefined();
    await store.forgetSource("a");
    expect(await store.source("a")).toBeUndefined();
    expect(await store.verdict("a")).toMatchObject({ record: clean });
    expect(store.health()).toEqual({ degraded: false, problems: [] });
  });

  it("forgets each kind after its own time", async () => {
    const clock = { now: NOW };
    await using store = storeAt(clock);
    await store.rememberVerdict("clean", clean);
    await store.rememberVerdict("infected", infected);
    await store.rememberSource("source", source());
    clock.now += 1001;
    expect(await store.verdict("clean")).toBeUndefined();
    expect(await store.verdict("infected")).toMatchObject({ record: infected });
    expect(await store.source("source")).toBeDefined();
    clock.now += 4000;
    expect(await store.verdict("infected")).toBeUndefined();
    expect(await store.source("source")).toBeUndefined();
  });

  it("keeps nothing whose time is 0, not even the older record", async () => {
    const clock = { now: NOW };
    await using store = storeAt(clock, { infected: 0 });
    await store.rememberVerdict("a", clean);
    await store.rememberVerdict("a", infected);
    expect(await store.verdict("a")).toBeUndefined();
  });

  it("drops the one used longest ago past its number of entries", async () => {
    await using store = storeAt({ now: NOW }, { maxEntries: 2 });
    await store.rememberVerdict("a", clean);
    await store.rememberVerdict("b", clean);
    await store.verdict("a");
    await store.rememberVerdict("c", clean);
    expect(await store.verdict("b")).toBeUndefined();
    expect(await store.verdict("a")).toMatchObject({ record: clean });
    expect(await store.verdict("c")).toMatchObject({ record: clean });
  });

  it("is bounded by bytes as well, whatever the pieces weigh", async () => {
    await using store = storeAt({ now: NOW }, { maxBytes: 80_000 });
    for (let n = 0; n < 10; n++) await store.rememberSource(`large ${n}`, source(300));
    const kept = await Promise.all(Array.from({ length: 10 }, (_, n) => store.source(`large ${n}`)));
    expect(kept.filter((record) => record !== undefined)).toHaveLength(3);
    await store.rememberSource("too large for it", source(100_000));
    expect(await store.source("too large for it")).toBeUndefined();
  });

  it("is not changed by what the caller does to its buffer", async () => {
    await using store = storeAt({ now: NOW });
    const record = source();
    await store.rememberSource("a", record);
    record.pieces.fill(9);
    expect(await store.source("a")).toEqual(source());
  });

  it("takes over another store's knowledge until it expires there, but never over its own", async () => {
    const clock = { now: NOW };
    await using store = storeAt(clock);
    const known = { record: clean, expiresAt: clock.now + 10 };
    expect(store.adoptVerdict("a", known)).toEqual(known);
    clock.now += 11;
    expect(await store.verdict("a")).toBeUndefined();
    expect(store.adoptVerdict("a", known)).toBeUndefined();
    // No longer than it would have been kept here from the start.
    expect(store.adoptVerdict("a", { record: clean, expiresAt: clock.now + 1e9 })).toEqual({ record: clean, expiresAt: NOW + 1000 });
    clock.now = NOW + 1001;
    expect(await store.verdict("a")).toBeUndefined();
    expect(store.adoptVerdict("a", { record: clean, expiresAt: clock.now + 1e9 })).toBeUndefined();
    await store.rememberVerdict("a", infected);
    expect(store.adoptVerdict("a", { record: clean, expiresAt: clock.now + 1e9 })).toMatchObject({ record: infected });
    expect(await store.verdict("a")).toMatchObject({ record: infected });
  });

  it("takes the newer of two verdicts, but infected before clean, and the refusal of a type before any", async () => {
    const clock = { now: NOW };
    const [older, newer] = [10, 20].map((at) => ({ stamps: { antivirus: { tag: "t", at: NOW + at }, other: { tag: "t", at: NOW } } }));
    const kept = (record: VerdictRecord) => ({ record, expiresAt: clock.now + 1000 });
    const [oldClean, newClean] = [
      { ...clean, ...older },
      { ...clean, ...newer },
    ];
    const [oldInfected, newInfected] = [
      { ...infected, ...older },
      { ...infected, ...newer },
    ];
    for (const [first, second, wins] of [
      [oldClean, newClean, newClean],
      [newClean, oldClean, newClean],
      [oldClean, newInfected, newInfected],
      [newInfected, oldClean, newInfected],
      [oldInfected, newClean, oldInfected],
      [newClean, oldInfected, oldInfected],
    ]) {
      await using store = storeAt(clock);
      for (const record of [first, second]) if (record !== undefined) store.adoptVerdict("a", kept(record));
      expect(await store.verdict("a")).toMatchObject({ record: wins });
    }
    await using store = storeAt(clock);
    store.adoptVerdict("a", kept(forbidden));
    store.adoptVerdict("a", kept(newClean));
    expect(await store.verdict("a")).toMatchObject({ record: forbidden });
  });

  it("remembers no verdict in the place of one that stays", async () => {
    await using store = storeAt({ now: NOW });
    await store.rememberVerdict("a", infected);
    expect(await store.rememberVerdict("a", clean, ({ record }) => record === infected)).toMatchObject({ record: infected });
    expect(await store.verdict("a")).toMatchObject({ record: infected });
    expect(await store.rememberVerdict("a", clean, () => false)).toMatchObject({ record: clean });
    expect(await store.verdict("a")).toMatchObject({ record: clean });
  });

  it("leaves no older verdict where a newer one may not be kept", async () => {
    const clock = { now: NOW };
    await using store = storeAt(clock, { infected: 0 });
    await store.rememberVerdict("a", clean);
    store.adoptVerdict("a", { record: { ...infected, stamps: { antivirus: { tag: "t", at: NOW + 2 } } }, expiresAt: clock.now + 1000 });
    expect(await store.verdict("a")).toBeUndefined();
  });

  it("gives a source the newest verdict of its content, from whatever source it came, and never past its time", async () => {
    const clock = { now: NOW };
    await using store = storeAt(clock);
    const verdict = { record: clean, expiresAt: clock.now + 500 };
    await store.rememberSource("a", { ...source(), verdict });
    expect(await store.source("a")).toEqual({ ...source(), verdict });
    expect(await store.verdict(source().content)).toEqual(verdict);
    await store.rememberVerdict(source().content, { ...infected, stamps: { antivirus: { tag: "t", at: NOW + 2 } } });
    expect((await store.source("a"))?.verdict?.record).toMatchObject({ outcome: "infected" });
    const adopted = store.adoptSource("b", { ...source(), verdict }, clock.now + 100);
    expect(adopted.verdict?.record.outcome).toBe("infected");
    clock.now += 101;
    expect(await store.source("b")).toBeUndefined();
    await store.rememberSource("c", { ...source(), content: "e".repeat(43), verdict });
    clock.now += 400;
    expect(await store.source("c")).toEqual({ ...source(), content: "e".repeat(43) });
  });
});
