import { describe, expect, it } from "vitest";
import { recordQuestion, type RecordQuestion } from "../../src/cluster/messages.ts";
import { RecordStore, type RecordStoreOptions } from "../../src/cluster/record-store.ts";

const MIB = 1024 * 1024;
const HOUR = 3_600_000;

/** As worker `owner` has it. */
function storeOf(options: Partial<RecordStoreOptions> = {}): {
  ask: (question: RecordQuestion, owner?: string) => unknown;
  store: RecordStore;
  clock: { now: number };
} {
  const clock = { now: 1_700_000_000_000 };
  const store = new RecordStore({ maxEntries: 1000, now: () => clock.now, ...options });
  return { ask: (question, owner = "one") => store.answer(recordQuestion.parse(question), owner), store, clock };
}

describe("records of all workers", () => {
  it("are kept for their time, replaced, and removed", () => {
    const { ask, clock } = storeOf();
    expect(ask({ do: "get", name: "verdict:a" })).toBeNull();
    ask({ do: "set", name: "verdict:a", json: "1", ttl: 1000.7 });
    expect(ask({ do: "get", name: "verdict:a" })).toEqual({ json: "1", expiresAt: clock.now + 1000, mark: 1 });
    ask({ do: "set", name: "verdict:a", json: "2", ttl: 2000 });
    clock.now += 1999;
    expect(ask({ do: "get", name: "verdict:a" })).toMatchObject({ json: "2" });
    clock.now += 1;
    expect(ask({ do: "get", name: "verdict:a" })).toBeNull();
    ask({ do: "set", name: "verdict:a", json: "3", ttl: HOUR });
    ask({ do: "delete", name: "verdict:a" });
    expect(ask({ do: "get", name: "verdict:a" })).toBeNull();
  });

  it("go when a newer one has no time to live, or no room: an older verdict must not outlive it", () => {
    const { ask } = storeOf({ maxBytes: MIB });
    for (const [json, ttl] of [
      ["2", 0.5],
      ["x".repeat(MIB), HOUR],
    ] as const) {
      ask({ do: "set", name: "verdict:a", json: "1", ttl: HOUR });
      ask({ do: "set", name: "verdict:a", json, ttl });
      expect(ask({ do: "get", name: "verdict:a" })).toBeNull();
    }
  });

  it("are replaced only while they are what was seen there: the same one written again is another", () => {
    const { ask, clock } = storeOf();
    const replace = (json: string, mark: number, ttl = HOUR): unknown => ask({ do: "replace", name: "verdict:a", json, ttl, mark });
    const there = (): unknown => ask({ do: "get", name: "verdict:a" });
    expect(replace("1", 0)).toBe(true);
    const first = there() as { mark: number };
    expect(first).toMatchObject({ json: "1", mark: expect.any(Number) as number });
    for (const mark of [0, first.mark + 1]) expect(replace("2", mark)).toEqual(first);
    ask({ do: "set", name: "verdict:a", json: "1", ttl: HOUR });
    const again = there() as { mark: number };
    expect(again.mark).not.toBe(first.mark);
    expect(replace("2", first.mark)).toEqual(again);
    expect(replace("2", again.mark)).toBe(true);
    expect(there()).toMatchObject({ json: "2" });
    clock.now += HOUR;
    // What is there no more stands in nobody's way.
    expect(replace("3", again.mark)).toBe(true);
    const { mark } = there() as { mark: number };
    expect(replace("null", mark + 1, 0)).toMatchObject({ json: "3" });
    expect(replace("null", mark, 0)).toBe(true);
    expect(there()).toBeNull();
  });

  it("are bounded in number and bytes, and a flood of media pushes out nothing else", () => {
    const { ask } = storeOf({ maxEntries: 100, maxBytes: MIB });
    ask({ do: "set", name: "pass:scanner", json: "1", ttl: HOUR });
    ask({ do: "set", name: "source2:known", json: "1", ttl: HOUR });
    for (let at = 0; at < 200; at += 1) ask({ do: "set", name: `verdict:${at}`, json: "1", ttl: HOUR });
    const there = (name: string): boolean => ask({ do: "get", name }) !== null;
    expect(Array.from({ length: 200 }, (_, at) => there(`verdict:${at}`)).filter(Boolean).length).toBe(100);
    expect([there("verdict:199"), there("verdict:0"), there("pass:scanner"), there("source2:known")]).toEqual([true, false, true, true]);
    for (let at = 0; at < 20; at += 1) ask({ do: "set", name: `source2:${at}`, json: "x".repeat(100_000), ttl: HOUR });
    expect(Array.from({ length: 20 }, (_, at) => there(`source2:${at}`)).filter(Boolean).length).toBe(5);
  });

  it("in a hash are read together, each until its own time; there is a bound on them", () => {
    const { ask, clock } = storeOf();
    const put = (name: string, field: string, expiresAt: number): unknown => ask({ do: "put", name, field, json: field, expiresAt });
    expect(ask({ do: "entries", name: "doubts" })).toEqual([]);
    expect([put("doubts", "one", clock.now + 10), put("doubts", "other", clock.now + 20)]).toEqual([true, true]);
    expect(ask({ do: "entries", name: "doubts" })).toEqual([
      ["one", "one"],
      ["other", "other"],
    ]);
    clock.now += 10;
    expect(ask({ do: "entries", name: "doubts" })).toEqual([["other", "other"]]);
    const kept = Array.from({ length: 2000 }, (_, at) => put("doubts", String(at), clock.now + HOUR));
    expect(kept.filter(Boolean).length).toBe(999);
    expect(put("doubts", "other", clock.now + HOUR)).toBe(true);
    const hashes = Array.from({ length: 2000 }, (_, at) => put(`hash ${at}`, "field", clock.now + HOUR));
    expect(hashes.filter(Boolean).length).toBe(999);
  });
});

function question(what: "take" | "extend", token: string, ttl = 5000): RecordQuestion {
  return { do: what, name: "work", token, ttl };
}

describe("a lease", () => {
  it("is one's until it is let go of, or its time is over", () => {
    const { ask, clock } = storeOf();
    expect(ask(question("take", "a"))).toBe(true);
    expect(ask(question("take", "b"))).toBe(false);
    clock.now += 4000;
    expect(ask(question("extend", "a"))).toBe(true);
    clock.now += 4000;
    expect(ask(question("take", "b"))).toBe(false);
    ask({ do: "release", name: "work", token: "b" });
    expect(ask(question("take", "b"))).toBe(false);
    ask({ do: "release", name: "work", token: "a" });
    expect(ask(question("take", "b"))).toBe(true);
    clock.now += 5000;
    expect(ask(question("take", "c"))).toBe(true);
    expect(ask(question("extend", "b"))).toBe(false);
  });

  it("tells who lets go of it whether another one has asked for it", () => {
    const { ask } = storeOf();
    const release = (token: string): unknown => ask({ do: "release", name: "work", token });
    ask(question("take", "a"));
    expect(release("a")).toBe(false);
    ask(question("take", "a"));
    ask(question("take", "b"));
    ask(question("extend", "a"));
    expect(release("b")).toBe(false);
    expect(release("a")).toBe(true);
    expect(release("a")).toBe(false);
  });

  it("is free as soon as the worker that has it is gone", () => {
    const { ask, store } = storeOf();
    ask(question("take", "a"), "one");
    ask({ ...question("take", "b"), name: "other work" } as RecordQuestion, "other");
    store.gone("one");
    expect(ask(question("take", "c"), "other")).toBe(true);
    expect(ask({ ...question("take", "d"), name: "other work" } as RecordQuestion, "one")).toBe(false);
  });
});

describe("what is no question", () => {
  it.each([
    [{ do: "flush" }],
    [{ do: "get", name: "" }],
    [{ do: "get", name: "x".repeat(1000) }],
    [{ do: "get", name: "a", more: 1 }],
    [{ do: "set", name: "a", json: "x".repeat(3 * MIB), ttl: 1 }],
    [{ do: "set", name: "a", json: "1", ttl: -1 }],
    [{ do: "set", name: "a", json: "1", ttl: NaN }],
    [{ do: "replace", name: "a", json: "1", ttl: 1 }],
    [{ do: "replace", name: "a", json: "1", ttl: 1, mark: -1 }],
    [{ do: "replace", name: "a", json: "x".repeat(3 * MIB), ttl: 1, mark: 0 }],
    [{ do: "put", name: "a", field: "x".repeat(200), json: "1", expiresAt: 1 }],
    [{ do: "put", name: "a", field: "f", json: "x".repeat(5000), expiresAt: 1 }],
    [null],
  ])("is refused (%#)", (question) => {
    expect(recordQuestion.safeParse(question).success).toBe(false);
  });
});
