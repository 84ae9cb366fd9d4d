import { randomBytes } from "node:crypto";
import { setImmediate as nextTurn } from "node:timers/promises";
import { afterEach, describe, expect, it, vi } from "vitest";
import { VerdictKeys } from "../../src/verdicts/keys.ts";
import type { Records } from "../../src/verdicts/records.ts";
import { DoubtRecords } from "../../src/verdicts/shared-doubts.ts";
import { SharedProvenSizes } from "../../src/verdicts/shared-proofs.ts";
import { SharedVerdictStore } from "../../src/verdicts/shared-verdicts.ts";
import { LeaseSharing } from "../../src/verdicts/sharing.ts";
import type { KeptVerdict, SourceRecord, VerdictRecord } from "../../src/verdicts/store.ts";
import { type TestWorker, workersOf } from "./workers.ts";

afterEach(() => {
  vi.useRealTimers();
});

const HOUR = 3_600_000;
const nothing = async (): Promise<undefined> => undefined;
const secret = randomBytes(32);
const never = new AbortController().signal;
const text = (content: unknown): string | undefined => (typeof content === "string" ? content : undefined);
const AWAY = "the primary process does not answer; verdicts are kept in this process only";

function pair(): readonly [TestWorker, TestWorker] {
  const [one, other] = workersOf(2);
  if (one === undefined || other === undefined) throw new Error("there are two");
  return [one, other];
}

async function recordOf(records: Records, name: string): Promise<string | undefined> {
  return (await records.get(name, text))?.record;
}

describe("records that workers keep with their primary", () => {
  it("are there for all of them, if they are what was looked for", async () => {
    const [one, other] = pair();
    await one.records.set("verdict:a", "clean", HOUR);
    const found = await other.records.get("verdict:a", text);
    expect(found?.record).toBe("clean");
    expect(Math.abs((found?.expiresAt ?? 0) - Date.now() - HOUR)).toBeLessThan(60_000);
    expect(await other.records.get("verdict:a", () => undefined)).toBeUndefined();
    expect(await other.records.look("verdict:a", () => undefined)).toBe("nothing");
    expect(await other.records.delete("verdict:a")).toBe(true);
    expect(await other.records.delete("verdict:a")).toBe(true);
    expect(await recordOf(one.records, "verdict:a")).toBeUndefined();
    expect(await one.records.look("verdict:a", text)).toBe("nothing");
  });

  it("are not replaced where another one stays, be it that it comes at that very moment", async () => {
    const [one, other] = pair();
    const infected = { parse: text, stays: ({ record }: { record: string }) => record === "infected" };
    expect(await one.records.setUnless("verdict:a", "clean", HOUR, infected)).toBeUndefined();
    let looks = 0;
    const found = await one.records.setUnless("verdict:a", "clean again", HOUR, {
      parse: text,
      stays: (there) => {
        looks += 1;
        // Between this worker's look and its next word, the other one's comes to the primary.
        if (looks === 1) void other.records.set("verdict:a", "infected", HOUR);
        return infected.stays(there);
      },
    });
    expect([found?.record, looks]).toEqual(["infected", 2]);
    expect(await recordOf(one.records, "verdict:a")).toBe("infected");
    // What can't be kept takes nothing away that stays, either.
    expect((await one.records.setUnless("verdict:a", "x".repeat(3 << 20), HOUR, infected))?.record).toBe("infected");
    expect((await one.records.setUnless("verdict:a", "clean", 0, infected))?.record).toBe("infected");
    expect(await one.records.setUnless("verdict:a", "clean", HOUR, { ...infected, stays: () => false })).toBeUndefined();
    expect(await recordOf(other.records, "verdict:a")).toBe("clean");
    expect(await one.records.setUnless("verdict:a", "x".repeat(3 << 20), HOUR, infected)).toBeUndefined();
    expect(await recordOf(other.records, "verdict:a")).toBeUndefined();
  });

  it("that are too long to be kept leave none behind that is older", async () => {
    const [one, other] = pair();
    await one.records.set("verdict:a", "clean", HOUR);
    await one.records.set("verdict:a", "x".repeat(3 << 20), HOUR);
    expect(await recordOf(other.records, "verdict:a")).toBeUndefined();
  });

  it("may live as long as a configuration can say", async () => {
    const [one, other] = pair();
    await one.records.set("verdict:a", "clean", Number.MAX_SAFE_INTEGER);
    expect(await one.records.hashSet("doubts", "field", "a doubt", 2 * Number.MAX_SAFE_INTEGER)).toBe(true);
    expect(await one.records.hashSet("doubts", "for ever", "a doubt")).toBe(true);
    expect(await recordOf(other.records, "verdict:a")).toBe("clean");
    expect(await other.records.hashEntries("doubts", text)).toEqual(
      new Map([
        ["field", "a doubt"],
        ["for ever", "a doubt"],
      ]),
    );
    expect(one.records.health().degraded).toBe(false);
  });

  it("in a hash are refused when they are too long", async () => {
    const [one] = pair();
    expect(await one.records.hashSet("doubts", "x".repeat(129), "a doubt")).toBe(false);
    expect(await one.records.hashSet("doubts", "field", "x".repeat(5000))).toBe(false);
    expect(await one.records.hashEntries("doubts", text)).toEqual(new Map());
  });
});

describe("hints", () => {
  it("reach all who listen, this process too, until they listen no more", async () => {
    const [one, other] = pair();
    const heard: string[] = [];
    let begun = 0;
    const subscriptions = [one, other].map(({ records }, index) =>
      records.subscribe(
        "news",
        (message) => heard.push(`${index}: ${message}`),
        () => (begun += 1),
      ),
    );
    await expect.poll(() => begun).toBe(2);
    await one.records.publish("other news", "not for them");
    await one.records.publish("news", "x".repeat(2000));
    await one.records.publish("news", "hello");
    await expect.poll(() => heard.toSorted()).toEqual(["0: hello", "1: hello"]);
    subscriptions[0]?.[Symbol.dispose]();
    await other.records.publish("news", "bye");
    await expect.poll(() => heard.slice(2)).toEqual(["1: bye"]);
  });

  it("that a listener can't deal with keep no other one from them", async () => {
    const [one] = pair();
    const heard: string[] = [];
    one.records.subscribe("news", () => {
      throw new Error("cannot");
    });
    one.records.subscribe("news", (message) => heard.push(message));
    await one.records.publish("news", "hello");
    await expect.poll(() => heard).toEqual(["hello"]);
    expect(one.logged).toEqual(["a hint could not be dealt with"]);
  });
});

describe("a primary that does not answer", () => {
  it("keeps nobody waiting longer than a small limit, once; then nothing is asked of it until it answers again", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "Date"] });
    const [one, other] = pair();
    await other.records.set("verdict:a", "clean", HOUR);
    let missed = 0;
    one.records.subscribe(
      "news",
      () => undefined,
      () => (missed += 1),
    );
    await vi.advanceTimersByTimeAsync(1);
    one.port.stuck = true;
    const asked = Promise.all([
      recordOf(one.records, "verdict:a"),
      one.records.hashEntries("doubts", text),
      one.records.hashSet("doubts", "field", "a doubt"),
      one.records.lease("work", 60_000).then((lease) => lease !== "taken"),
      one.records.look("verdict:a", text),
      one.records.setUnless("verdict:b", "infected", HOUR, { parse: text, stays: () => true }),
      one.records.delete("verdict:b"),
    ]);
    await vi.advanceTimersByTimeAsync(1010);
    expect(await asked).toEqual([undefined, undefined, false, true, "away", undefined, false]);
    expect(one.records.health()).toEqual({ degraded: true, problems: [AWAY] });
    const sent = one.port.sent.length;
    expect(await recordOf(one.records, "verdict:a")).toBeUndefined();
    expect(one.port.sent.length).toBe(sent);

    one.port.stuck = false;
    await vi.advanceTimersByTimeAsync(1100);
    // The question, and its answer.
    for (let turns = 0; turns < 4; turns += 1) await nextTurn();
    expect(one.records.health()).toEqual({ degraded: false, problems: [] });
    expect(await recordOf(one.records, "verdict:a")).toBe("clean");
    expect(missed).toBe(2);
    expect(one.logged).toEqual([AWAY, "the primary process answers again"]);
    expect(await other.records.lease("work", 60_000)).toBe("taken");
  });
});

function doubtsOf({ records }: TestWorker, worker: string): DoubtRecords {
  return new DoubtRecords({ records, secret, lifetime: HOUR, worker });
}

/** As long as what was found infected counts. */
function stays({ record }: KeptVerdict): boolean {
  return record.outcome === "infected";
}

describe("what rests on these records", () => {
  const keys = new VerdictKeys(randomBytes(32));
  const madeAt = Date.now();
  const clean: VerdictRecord = { outcome: "clean", stamps: { antivirus: { tag: "tag", at: madeAt } } };
  const infected: VerdictRecord = {
    outcome: "infected",
    stamps: { antivirus: { tag: "tag", at: madeAt + 1 } },
    threat: "Eicar",
    scanner: "antivirus",
  };

  it("verdicts and sources: what one worker has found, the other knows; what is found infected, at once", async () => {
    const stores = pair().map(({ records }) => new SharedVerdictStore({ records, ttl: { clean: HOUR, infected: HOUR }, maxEntries: 100 }));
    const [one, other] = stores as [SharedVerdictStore, SharedVerdictStore];
    const content = keys.content(randomBytes(32), "policy");
    const source: SourceRecord = { content, digest: keys.digest(randomBytes(32)), size: 1024 * 1024 + 1, pieces: randomBytes(96) };
    const verdict = await one.rememberVerdict(content, clean);
    await one.rememberSource("source", { ...source, ...(verdict === undefined ? {} : { verdict }) });
    // Not kept longer than from when it was made.
    expect(await other.source("source")).toEqual({ ...source, verdict: { record: clean, expiresAt: madeAt + HOUR } });
    await one.rememberVerdict(content, infected);
    await expect.poll(async () => (await other.verdict(content))?.record).toEqual(infected);
    await one.forgetSource("source");
  });

  it("verdicts by several workers at the same moment: infected stands, whoever was first", async () => {
    const stores = workersOf(3).map(
      ({ records }) => new SharedVerdictStore({ records, ttl: { clean: HOUR, infected: HOUR }, maxEntries: 100 }),
    );
    for (let round = 0; round < 20; round += 1) {
      const content = keys.content(randomBytes(32), "policy");
      const work = stores.flatMap((store, at) => [
        store.rememberVerdict(content, clean, stays),
        ...(at === round % 3 ? [store.rememberVerdict(content, infected)] : []),
        store.rememberVerdict(content, clean, stays),
      ]);
      await Promise.all(work);
      for (const store of stores) expect((await store.verdict(content, true))?.record).toEqual(infected);
      // Nor does what comes later.
      for (const store of stores) expect((await store.rememberVerdict(content, clean, stays))?.record).toEqual(infected);
    }
  });

  it("turns: one leads, and when its process dies the next one does", async () => {
    const [one, other] = pair();
    const first = await new LeaseSharing({ records: one.records, patience: HOUR }).lead("work", nothing, never);
    expect("lease" in first).toBe(true);
    const second = new LeaseSharing({ records: other.records, patience: HOUR }).lead("work", nothing, never);
    expect(await other.records.lease("work", HOUR)).toBe("taken");
    one.die();
    expect("lease" in (await second)).toBe(true);
  });

  it("doubts: each worker has its own beside the other's, and takes over what an earlier process of its number left", async () => {
    const [one, other] = pair();
    const [first, second] = [doubtsOf(one, "1"), doubtsOf(other, "2")];
    await first.keep("antivirus", [{ of: "clean", from: 1, until: 2 }]);
    await second.keep("antivirus", [{ of: "clean", from: 5, until: 6 }]);
    expect(await first.load("antivirus")).toEqual([
      { of: "clean", from: 1, until: 2 },
      { of: "clean", from: 5, until: 6 },
    ]);
    await doubtsOf(other, "1").keep("antivirus", [{ of: "clean", from: 1, until: 3 }]);
    expect(await first.load("antivirus")).toEqual([
      { of: "clean", from: 1, until: 3 },
      { of: "clean", from: 5, until: 6 },
    ]);
    // They see the same services: what one has seen pass has passed.
    await first.passed("replica", 7);
    expect(await second.lastPass("replica")).toBe(7);
  });

  it("proven sizes: one worker proves for both", async () => {
    const [one, other] = pair().map(({ records }) => new SharedProvenSizes(records, secret, HOUR)) as [
      SharedProvenSizes,
      SharedProvenSizes,
    ];
    const lease = await one.lease("service");
    expect(lease).toBeDefined();
    expect(await other.lease("service")).toBeUndefined();
    await one.remember("service", { size: 1000, at: 5 });
    await lease?.[Symbol.asyncDispose]();
    expect(await other.recall("service")).toEqual({ size: 1000, at: 5 });
  });
});
