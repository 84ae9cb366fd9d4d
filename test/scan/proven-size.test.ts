import * as fc from "fast-check";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import type { CanaryAnswer, Standing } from "../../src/scan/proof.ts";
import { SizeProof, type SizeProofOptions } from "../../src/scan/proven-size.ts";
import type { SharedProof } from "../../src/verdicts/shared-proofs.ts";

const MEBIBYTE = 1024 * 1024;
const HOUR = 3_600_000;
const START = 1_000 * HOUR;
const never = new AbortController().signal;

type Reply = CanaryAnswer | Promise<CanaryAnswer>;

const INFECTED = { outcome: "infected", tag: "t" } as const;
const CLEAN = { outcome: "clean", tag: "t" } as const;
const FAILED = { outcome: "failed", why: "500 Server error" } as const;
const AWAY = { outcome: "unreachable", why: "no route" } as const;

/** Its canaries pass. `lost` is one that never ends. */
function standing(tag: string, lost = never): Standing {
  return { tag, lost };
}

/** A service, and the proof of it with a clock that only tests move. */
class Bench {
  now = START;
  /** What the service says to a canary of this size. */
  reply: (size: number, signal: AbortSignal) => Reply = () => INFECTED;
  readonly sent: number[] = [];
  readonly log: string[] = [];
  atOnce = 0;
  readonly proof: SizeProof;

  constructor(options: Partial<SizeProofOptions> = {}) {
    this.proof = new SizeProof({
      name: "antivirus",
      maxSize: 64 * MEBIBYTE,
      timeout: 10_000,
      interval: 6 * HOUR,
      send: async ({ size }, signal) => {
        this.sent.push(size);
        this.atOnce += 1;
        expect(this.atOnce).toBe(1);
        try {
          return await this.reply(size, signal);
        } finally {
          this.atOnce -= 1;
        }
      },
      log: { sizeProven: (service, tag, size, wanted) => void this.log.push(`${service} ${tag} ${size} of ${wanted}`) },
      clock: () => this.now,
      ...options,
    });
    onTestFinished(() => this.proof[Symbol.dispose]());
  }

  /** The service scans up to this size and acquits the rest. */
  scansUpTo(limit: number, beyond: CanaryAnswer = CLEAN): this {
    this.reply = (size) => (size <= limit ? INFECTED : beyond);
    return this;
  }

  /** Its canaries pass, as they do again and again; resolves with what is known once nothing is under way. */
  async stands(tag = "t"): Promise<number> {
    this.proof.stands(standing(tag));
    // Other proofs have their turn.
    await new Promise(setImmediate);
    while (this.atOnce > 0) await new Promise(setImmediate);
    return this.proof.limit(tag, never);
  }

  doubts(at: number, outcome: "clean" | "infected" = "clean"): boolean {
    return this.proof.doubts({ tag: "t", at }, outcome);
  }
}

/** Resolves when the signal aborts, with what the ICAP client would say. */
function hangs(_: number, signal: AbortSignal): Promise<CanaryAnswer> {
  return new Promise((_resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason as Error));
  });
}

describe("the size that a service is proven to scan", () => {
  it("is all that is wanted when the largest canary is caught: two are sent, and there is nothing to say", async () => {
    const bench = new Bench();
    expect(await bench.stands()).toBe(64 * MEBIBYTE);
    expect(bench.sent).toEqual([MEBIBYTE, 64 * MEBIBYTE]);
    expect(bench.proof.warnings).toEqual([]);
    expect(bench.log).toEqual([`antivirus t ${64 * MEBIBYTE} of ${64 * MEBIBYTE}`]);
  });

  it("is never above what the service scans, and at most 10 % below, found with few canaries", async () => {
    const sizes = fc.integer({ min: 1200, max: 4 * 1024 * MEBIBYTE - 1 });
    const property = fc.asyncProperty(sizes, sizes, async (maxSize, limit) => {
      const bench = new Bench({ maxSize }).scansUpTo(limit);
      const size = await bench.proof.prove(standing("t"));
      const due = Math.min(limit, maxSize);
      expect(size).toBeLessThanOrEqual(due);
      expect(size * 1.1).toBeGreaterThanOrEqual(due - 1);
      expect(bench.sent.length).toBeLessThan(10);
    });
    await fc.assert(property, { numRuns: 300 });
  });

  it.each<CanaryAnswer>([CLEAN, { outcome: "unscannable", tag: "t" }, { outcome: "modified", tag: "t" }, FAILED])(
    "ends where the answer is not infected but $outcome",
    async (answer) => {
      const size = await new Bench().scansUpTo(5 * MEBIBYTE, answer).stands();
      expect(size).toBeGreaterThan(4.5 * MEBIBYTE);
      expect(size).toBeLessThanOrEqual(5 * MEBIBYTE);
    },
  );

  it("is nothing at all when even the smallest is acquitted", async () => {
    const bench = new Bench().scansUpTo(0);
    expect(await bench.stands()).toBe(0);
    expect(bench.proof.warnings).toEqual([expect.stringContaining("all media is answered 503")]);
  });

  it("tells the operator what it is and what to set", async () => {
    const bench = new Bench({ maxSize: 200 * MEBIBYTE }).scansUpTo(5 * MEBIBYTE);
    const size = await bench.stands();
    const [warning, ...more] = bench.proof.warnings;
    expect(more).toEqual([]);
    expect(warning).toMatch(/^antivirus: .* up to 4\.\d\d MiB only/);
    for (const part of [
      "200 MiB of scan.max_file_size",
      "virus_scan.MaxObjectSize",
      "StreamMaxLength",
      "MaxFileSize",
      "than 200M",
      "MaxScanSize",
      "400M",
    ]) {
      expect(warning).toContain(part);
    }
    expect(bench.log).toEqual([`antivirus t ${size} of ${200 * MEBIBYTE}`]);
  });

  it("may be wanted smaller than the smallest canary", async () => {
    const bench = new Bench({ maxSize: 10 });
    expect(await bench.stands()).toBeGreaterThanOrEqual(10);
    expect(bench.proof.warnings).toEqual([]);
  });
});

describe("a proof that can't be brought to its end", () => {
  it("leaves 1 MiB when nothing was known, and says why", async () => {
    const bench = new Bench();
    bench.reply = () => AWAY;
    expect(await bench.stands()).toBe(MEBIBYTE);
    expect(bench.proof.warnings).toEqual([expect.stringMatching(/could not be found out \(no route\).* above 1 MiB/)]);
  });

  it("by its time limit ends the canary, not only the wait", async () => {
    const bench = new Bench({ timeout: 20 });
    const signals: AbortSignal[] = [];
    bench.reply = (size, signal) => {
      signals.push(signal);
      return size > MEBIBYTE ? hangs(size, signal) : INFECTED;
    };
    expect(await bench.proof.prove(standing("t"))).toBe(MEBIBYTE);
    expect(signals.at(-1)?.aborted).toBe(true);
    expect(bench.proof.warnings).toEqual([expect.stringContaining("not answered in time")]);
  });

  it("keeps what was proven before, without a doubt", async () => {
    const bench = new Bench();
    await bench.stands();
    bench.now += 6 * HOUR;
    bench.reply = () => AWAY;
    expect(await bench.stands()).toBe(64 * MEBIBYTE);
    expect(bench.doubts(START + HOUR)).toBe(false);
    expect(bench.log).toHaveLength(1);
  });

  it("keeps nothing that it refuted, only what it caught", async () => {
    const bench = new Bench();
    await bench.stands();
    bench.now += 6 * HOUR;
    bench.reply = (size) => (size <= 9 * MEBIBYTE ? INFECTED : size === 64 * MEBIBYTE ? CLEAN : AWAY);
    expect(await bench.stands()).toBe(8 * MEBIBYTE);
    expect(bench.doubts(START + HOUR)).toBe(true);
  });

  it("leaves nothing when 1 MiB was acquitted", async () => {
    const bench = new Bench();
    bench.reply = (size) => (size === MEBIBYTE ? CLEAN : AWAY);
    expect(await bench.stands()).toBe(0);
  });

  it("takes a service that fails at every canary for one that fails, not for one with a limit", async () => {
    const bench = new Bench().scansUpTo(0, FAILED);
    expect(await bench.stands()).toBe(MEBIBYTE);
    expect(bench.proof.warnings).toEqual([expect.stringContaining("500 Server error")]);
  });
});

/** The n-th canary and those that follow, up to another one, are answered with an error, as long as an engine is away. */
function awayFor(bench: Bench, first: number, last: number): void {
  const inner = bench.reply;
  const before = bench.sent.length;
  bench.reply = (size, signal) => {
    const nth = bench.sent.length - before;
    return nth >= first && nth <= last ? FAILED : inner(size, signal);
  };
}

describe("an engine that is away for a moment", () => {
  // The second canary is the largest, the eighth ends the search; the ninth is of a size that was caught, the tenth of the one that failed.
  it.each([
    [2, 5],
    [2, 8],
    [2, 9],
    [2, 100],
  ])("from the %i. canary to the %i. is not taken for a limit, and looked at again soon", async (first, last) => {
    const store = new Store();
    const bench = new Bench(shared(store));
    awayFor(bench, first, last);
    await bench.stands();
    expect(bench.proof.warnings).toEqual([expect.stringMatching(/could not be found out \(500 Server error\)/)]);
    expect(store.proofs.size).toBe(0);
    bench.reply = () => INFECTED;
    bench.now += 2_000;
    expect(await bench.stands()).toBe(64 * MEBIBYTE);
    expect(bench.proof.warnings).toEqual([]);
    expect(store.proofs.size).toBe(1);
  });

  it("for one canary alone costs nothing", async () => {
    const bench = new Bench();
    awayFor(bench, 2, 2);
    expect(await bench.stands()).toBe(64 * MEBIBYTE);
    expect(bench.proof.warnings).toEqual([]);
    bench.now += 6 * HOUR - 1;
    await bench.stands();
    expect(bench.sent.filter((size) => size === 64 * MEBIBYTE)).toHaveLength(2);
  });

  it.each([1, 2])("from the %i. canary of a later proof costs nothing of what was proven", async (first) => {
    const bench = new Bench();
    await bench.stands();
    bench.now += 6 * HOUR;
    awayFor(bench, first, 100);
    expect(await bench.stands()).toBe(64 * MEBIBYTE);
    expect(bench.doubts(START + HOUR)).toBe(false);
    expect(bench.log).toHaveLength(1);
  });

  it("and comes back blind: what was caught before and is acquitted now is proven no more", async () => {
    const bench = new Bench();
    awayFor(bench, 2, 8);
    const inner = bench.reply;
    bench.reply = (size, signal) => (bench.sent.length > 8 ? CLEAN : inner(size, signal));
    expect(await bench.stands()).toBe(0);
    expect(bench.doubts(START)).toBe(true);
  });
});

/** Its canaries were caught, and it is lost while the second large one is under way. */
async function lose(bench: Bench): Promise<void> {
  const inner = bench.reply;
  const lost = new AbortController();
  bench.reply = (size, signal) => (size > MEBIBYTE ? hangs(size, signal) : INFECTED);
  const sent = bench.sent.length;
  bench.proof.stands(standing("t", lost.signal));
  while (bench.sent.length < sent + 2) await new Promise(setImmediate);
  lost.abort(new Error("it is down"));
  while (bench.atOnce > 0) await new Promise(setImmediate);
  await new Promise(setImmediate);
  bench.reply = inner;
}

describe("a service that stands no longer", () => {
  it("ends the canary, has nothing said of its size, and is proven anew as soon as it stands", async () => {
    const bench = new Bench();
    await lose(bench);
    expect([bench.proof.size("t"), bench.log, bench.proof.warnings]).toEqual([undefined, [], []]);
    expect(await bench.stands()).toBe(64 * MEBIBYTE);
  });

  it("keeps what was proven before", async () => {
    const bench = new Bench();
    await bench.stands();
    bench.now += 6 * HOUR;
    await lose(bench);
    expect(bench.proof.size("t")).toBe(64 * MEBIBYTE);
    await bench.stands();
    expect(bench.sent).toHaveLength(6);
  });

  it("is proven ever less often when it falls each time: the canary may be what fells it", async () => {
    const bench = new Bench();
    await lose(bench);
    await lose(bench);
    expect(await bench.stands()).toBe(MEBIBYTE);
    expect(bench.sent).toHaveLength(4);
    bench.now += 4_000;
    await lose(bench);
    bench.now += 4_000;
    expect(await bench.stands()).toBe(MEBIBYTE);
    expect(bench.sent).toHaveLength(6);
  });

  it("has what it acquitted counted all the same", async () => {
    const bench = new Bench();
    await bench.stands();
    bench.now += 6 * HOUR;
    const lost = new AbortController();
    bench.reply = (size, signal) => (size <= MEBIBYTE ? INFECTED : size === 64 * MEBIBYTE ? CLEAN : hangs(size, signal));
    bench.proof.stands(standing("t", lost.signal));
    while (bench.sent.length < 5) await new Promise(setImmediate);
    lost.abort(new Error("it is down"));
    await bench.stands();
    expect(bench.proof.size("t")).toBe(MEBIBYTE);
    expect(bench.doubts(START + HOUR)).toBe(true);
  });

  it("tells no operator of its size", async () => {
    const bench = new Bench().scansUpTo(5 * MEBIBYTE);
    const lost = new AbortController();
    await bench.proof.prove(standing("t", lost.signal));
    expect(bench.proof.warnings).toHaveLength(1);
    lost.abort(new Error("it is down"));
    expect(bench.proof.warnings).toEqual([]);
  });
});

describe("scans that wait", () => {
  it("go first: the canary is ended and sent again later, but in the end it is not", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    onTestFinished(() => void vi.useRealTimers());
    const bench = new Bench();
    const release = Promise.withResolvers<CanaryAnswer>();
    const held: AbortSignal[] = [];
    bench.reply = (size, signal) => {
      if (size === MEBIBYTE) return INFECTED;
      held.push(signal);
      return Promise.race([hangs(size, signal), release.promise]);
    };
    const size = bench.proof.prove(standing("t"));
    for (let canaries = 1; canaries <= 5; canaries += 1) {
      while (held.length < canaries) await new Promise(setImmediate);
      bench.proof.giveWay();
      expect(held.at(-1)?.aborted).toBe(canaries < 5);
      for (let turns = 0; turns < 5; turns += 1) await new Promise(setImmediate);
      expect(held).toHaveLength(canaries);
      await vi.advanceTimersByTimeAsync(2_000 * 2 ** (canaries - 1));
    }
    release.resolve(INFECTED);
    expect(await size).toBe(64 * MEBIBYTE);
    expect(bench.sent).toHaveLength(6);
    bench.proof.giveWay();
  });

  it("are no reason to go on when the gateway ends", async () => {
    const bench = new Bench();
    bench.reply = hangs;
    const size = bench.proof.prove(standing("t"));
    while (bench.sent.length === 0) await new Promise(setImmediate);
    bench.proof.giveWay();
    while (bench.atOnce > 0) await new Promise(setImmediate);
    bench.proof[Symbol.dispose]();
    expect(await size).toBe(MEBIBYTE);
    expect(bench.sent).toHaveLength(1);
  });
});

describe("the next proof", () => {
  it("comes after the interval, and the service is used in the meantime", async () => {
    const bench = new Bench();
    await bench.stands();
    bench.now += 6 * HOUR - 1;
    await bench.stands();
    expect(bench.sent).toHaveLength(2);
    bench.now += 1;
    bench.reply = hangs;
    bench.proof.stands(standing("t"));
    expect(await bench.proof.limit("t", never)).toBe(64 * MEBIBYTE);
    expect(bench.sent).toHaveLength(3);
  });

  it("comes sooner when the size fell short, but ever less often", async () => {
    const bench = new Bench().scansUpTo(MEBIBYTE);
    await bench.stands();
    const pauses: number[] = [];
    for (let last = bench.now; pauses.length < 12; bench.now += 10_000) {
      const before = bench.sent.length;
      await bench.stands();
      if (bench.sent.length === before) continue;
      pauses.push(bench.now - last);
      last = bench.now;
    }
    expect(pauses.slice(0, 4)).toEqual([30_000, 60_000, 120_000, 240_000]);
    expect(pauses.slice(-2)).toEqual([6 * HOUR, 6 * HOUR]);
  });

  it("finds what the operator has mended, under the same tag", async () => {
    const bench = new Bench().scansUpTo(5 * MEBIBYTE);
    await bench.stands();
    bench.scansUpTo(100 * MEBIBYTE);
    bench.now += 30_000;
    expect(await bench.stands()).toBe(64 * MEBIBYTE);
    expect(bench.proof.warnings).toEqual([]);
    expect(bench.log).toHaveLength(2);
  });

  it("that comes out smaller makes clean verdicts since the last one doubtful, and no others", async () => {
    const bench = new Bench();
    await bench.stands();
    bench.now += 6 * HOUR;
    bench.scansUpTo(5 * MEBIBYTE);
    await bench.stands();
    const times = [START - 1, START, START + HOUR, bench.now, bench.now + 1];
    expect(times.map((at) => bench.doubts(at))).toEqual([false, true, true, true, false]);
    expect(times.some((at) => bench.doubts(at, "infected"))).toBe(false);
  });

  it("that comes out smaller because the service failed, and said so, makes none doubtful", async () => {
    const bench = new Bench();
    await bench.stands();
    bench.now += 6 * HOUR;
    bench.scansUpTo(5 * MEBIBYTE, FAILED);
    expect(await bench.stands()).toBeLessThanOrEqual(5 * MEBIBYTE);
    expect(bench.doubts(START + HOUR)).toBe(false);
  });

  it("when it is the first, makes doubtful what was kept before: nobody knows under which size", async () => {
    const bench = new Bench().scansUpTo(5 * MEBIBYTE);
    await bench.stands();
    expect(bench.doubts(START - 100 * HOUR)).toBe(true);
    expect(bench.doubts(START + 1)).toBe(false);
  });
});

describe("1 MiB, which is taken for granted", () => {
  it("and refuted, makes doubtful what passed while it was", async () => {
    const bench = new Bench().scansUpTo(100_000);
    const inner = bench.reply;
    bench.reply = (size, signal) => {
      bench.now += 1000;
      return inner(size, signal);
    };
    await bench.stands();
    expect(bench.doubts(START + 500)).toBe(true);
    expect(bench.doubts(bench.now)).toBe(true);
    expect(bench.doubts(bench.now + 1)).toBe(false);
    expect(bench.doubts(START + 500, "infected")).toBe(false);
  });
});

describe("whoever asks for the limit", () => {
  it("waits while it is found out for the first time, as long as their signal lets them", async () => {
    const bench = new Bench();
    const { promise, resolve } = Promise.withResolvers<CanaryAnswer>();
    bench.reply = (size) => (size > MEBIBYTE ? promise : INFECTED);
    bench.proof.stands(standing("t"));
    const patience = new AbortController();
    const impatient = bench.proof.limit("t", patience.signal);
    const patient = bench.proof.limit("t", never);
    patience.abort(new Error("the client's wait is over"));
    await expect(impatient).rejects.toThrow("the client's wait is over");
    resolve(INFECTED);
    expect(await patient).toBe(64 * MEBIBYTE);
  });

  it("waits no longer than until enough is proven", async () => {
    const bench = new Bench();
    bench.reply = (size, signal) => (size > MEBIBYTE ? hangs(size, signal) : INFECTED);
    bench.proof.stands(standing("t"));
    expect(await bench.proof.limit("t", never, 700_000)).toBe(MEBIBYTE);
    expect(bench.proof.size("t")).toBeUndefined();
  });

  it("gets 1 MiB for a tag that nobody spoke of", async () => {
    expect(await new Bench().proof.limit("t", never)).toBe(MEBIBYTE);
  });

  it("is let go when the gateway ends, and so is the service", async () => {
    const bench = new Bench();
    bench.reply = hangs;
    bench.proof.stands(standing("t"));
    const limit = bench.proof.limit("t", never);
    while (bench.sent.length === 0) await new Promise(setImmediate);
    bench.proof[Symbol.dispose]();
    expect(await limit).toBe(MEBIBYTE);
    expect(bench.atOnce).toBe(0);
    bench.proof.stands(standing("t"));
    expect(await bench.proof.prove(standing("t"))).toBe(MEBIBYTE);
    expect(bench.sent).toHaveLength(1);
  });
});

describe("another tag", () => {
  it("has a size of its own", async () => {
    const bench = new Bench();
    await bench.stands();
    bench.reply = (size) => ({ outcome: size <= 5 * MEBIBYTE ? "infected" : "clean", tag: "u" });
    expect(await bench.stands("u")).toBeLessThanOrEqual(5 * MEBIBYTE);
    expect(await bench.proof.limit("t", never)).toBe(64 * MEBIBYTE);
    expect(bench.log).toHaveLength(2);
  });

  it("in the answer to a canary: the proof is worth nothing for the old one", async () => {
    const bench = new Bench();
    bench.reply = (size) => ({ outcome: "infected", tag: size > MEBIBYTE ? "u" : "t" });
    expect(await bench.stands()).toBe(MEBIBYTE);
    bench.reply = () => ({ outcome: "infected", tag: "u" });
    expect(await bench.stands("u")).toBe(64 * MEBIBYTE);
  });

  it("that stands while a proof is under way ends that, and is proven at once, alone", async () => {
    const bench = new Bench();
    bench.reply = hangs;
    bench.proof.stands(standing("t"));
    const waiting = bench.proof.limit("t", never);
    await new Promise(setImmediate);
    bench.reply = () => ({ outcome: "infected", tag: "u" });
    bench.proof.stands(standing("u"));
    expect(await waiting).toBe(MEBIBYTE);
    expect(await bench.proof.limit("u", never)).toBe(64 * MEBIBYTE);
    expect(bench.sent).toEqual([MEBIBYTE, MEBIBYTE, 64 * MEBIBYTE]);
  });

  it("and back to the first before that proof has ended: it is proven all the same", async () => {
    const bench = new Bench();
    bench.reply = hangs;
    bench.proof.stands(standing("t"));
    await new Promise(setImmediate);
    bench.reply = () => INFECTED;
    bench.proof.stands(standing("u"));
    bench.proof.stands(standing("t"));
    expect(await bench.proof.limit("t", never)).toBe(64 * MEBIBYTE);
    expect(bench.sent).toEqual([MEBIBYTE, MEBIBYTE, 64 * MEBIBYTE]);
  });

  it("that is known ends the proof of the first, which is begun anew when that stands again", async () => {
    const bench = new Bench();
    bench.reply = () => ({ outcome: "infected", tag: "known" });
    await bench.stands("known");
    bench.reply = hangs;
    bench.proof.stands(standing("t"));
    while (bench.sent.length < 3) await new Promise(setImmediate);
    bench.reply = () => INFECTED;
    bench.proof.stands(standing("known"));
    bench.proof.stands(standing("t"));
    expect(await bench.proof.limit("t", never)).toBe(64 * MEBIBYTE);
    expect(bench.sent.slice(3)).toEqual([MEBIBYTE, 64 * MEBIBYTE]);
  });

  it("after another does not fill the memory, and the newest is known", async () => {
    const bench = new Bench({ maxSize: MEBIBYTE });
    for (let index = 0; index < 40; index += 1) {
      bench.reply = () => ({ outcome: "infected", tag: `t${index}` });
      await bench.stands(`t${index}`);
    }
    expect(bench.proof.size("t0")).toBeUndefined();
    expect(bench.proof.size("t39")).toBe(MEBIBYTE);
  });
});

/** As in Redis, for all instances. */
class Store {
  readonly proofs = new Map<string, SharedProof>();
  held = false;
  asked = 0;

  async recall(key: string): Promise<SharedProof | undefined> {
    this.asked += 1;
    return this.proofs.get(key);
  }

  async remember(key: string, proof: SharedProof): Promise<void> {
    this.proofs.set(key, proof);
  }

  async lease(): Promise<AsyncDisposable | undefined> {
    if (this.held) return undefined;
    this.held = true;
    return { [Symbol.asyncDispose]: async () => void (this.held = false) };
  }
}

const shared = (proofs: Store): Partial<SizeProofOptions> => ({ shared: { proofs, key: "antivirus" } });

describe("several instances", () => {
  it("send the canaries once for all of them, also when they start together", async () => {
    const store = new Store();
    const [one, two] = [new Bench(shared(store)).scansUpTo(5 * MEBIBYTE), new Bench(shared(store))];
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const reply = one.reply;
    one.reply = async (size, signal) => {
      await promise;
      return reply(size, signal);
    };
    const both = [one.proof.prove(standing("t")), two.proof.prove(standing("t"))];
    while (store.asked < 3) await new Promise(setImmediate);
    resolve(undefined);
    const [size, same] = await Promise.all(both);
    expect(size).toBeLessThanOrEqual(5 * MEBIBYTE);
    expect(same).toBe(size);
    expect(two.sent).toEqual([]);
    expect(two.proof.warnings).toEqual(one.proof.warnings);
    expect(store.held).toBe(false);
  });

  it("take turns when one has gone before it knew", async () => {
    const store = new Store();
    store.held = true;
    const bench = new Bench(shared(store));
    const limit = bench.proof.prove(standing("t"));
    while (store.asked < 1) await new Promise(setImmediate);
    store.held = false;
    expect(await limit).toBe(64 * MEBIBYTE);
    expect(store.held).toBe(false);
  });

  it("look again once they have the lease: the other may have ended just before", async () => {
    const store = new Store();
    const lease = store.lease.bind(store);
    store.lease = async () => {
      store.recall = async () => ({ size: 5, at: START - 1 });
      return lease();
    };
    const bench = new Bench(shared(store));
    expect(await bench.proof.prove(standing("t"))).toBe(5);
    expect(bench.sent).toEqual([]);
    expect(store.held).toBe(false);
  });

  it("send nothing when the gateway ends while they look", async () => {
    const store = new Store();
    const bench = new Bench(shared(store));
    store.recall = async () => {
      bench.proof[Symbol.dispose]();
      return undefined;
    };
    expect(await bench.proof.prove(standing("t"))).toBe(MEBIBYTE);
    expect(bench.sent).toEqual([]);
    expect(store.held).toBe(false);
  });

  it("don't wait for ever for one that holds the lease and never ends", async () => {
    const store = new Store();
    store.held = true;
    const bench = new Bench({ ...shared(store), timeout: 100 });
    expect(await bench.proof.prove(standing("t"))).toBe(64 * MEBIBYTE);
  });

  it("wait for another only until the gateway ends", async () => {
    const store = new Store();
    store.held = true;
    const bench = new Bench(shared(store));
    const limit = bench.proof.prove(standing("t"));
    while (store.asked < 1) await new Promise(setImmediate);
    bench.proof[Symbol.dispose]();
    expect(await limit).toBe(MEBIBYTE);
    expect(bench.sent).toEqual([]);
  });

  it.each([
    ["from the future", { size: MEBIBYTE, at: START + 1 }],
    ["as old as the interval", { size: MEBIBYTE, at: START - 6 * HOUR }],
    ["of no time", { size: MEBIBYTE, at: Number.NaN }],
    ["of a negative size", { size: -1, at: START - 1 }],
    ["of half a byte", { size: 0.5, at: START - 1 }],
    ["of no size", { size: Number.NaN, at: START - 1 }],
  ])("don't believe a proof %s", async (_, proof) => {
    const store = new Store();
    store.recall = async () => proof;
    const bench = new Bench(shared(store));
    expect(await bench.proof.prove(standing("t"))).toBe(64 * MEBIBYTE);
    expect(bench.sent).toHaveLength(2);
  });

  it("believe no more than they want scanned themselves", async () => {
    const store = new Store();
    store.recall = async () => ({ size: 1000 * MEBIBYTE, at: START - 1 });
    const bench = new Bench(shared(store));
    expect(await bench.proof.prove(standing("t"))).toBe(64 * MEBIBYTE);
    expect(bench.sent).toEqual([]);
  });

  it("that want another size, or meet another tag, prove that themselves", async () => {
    const store = new Store();
    await new Bench(shared(store)).proof.prove(standing("t"));
    const larger = new Bench({ ...shared(store), maxSize: 128 * MEBIBYTE });
    expect(await larger.proof.prove(standing("t"))).toBe(128 * MEBIBYTE);
    const tagged = new Bench(shared(store));
    tagged.reply = () => ({ outcome: "infected", tag: "u" });
    await tagged.proof.prove(standing("u"));
    expect(tagged.sent).toHaveLength(2);
  });

  it("tell nobody of a proof that could not be brought to its end", async () => {
    const store = new Store();
    const bench = new Bench(shared(store));
    bench.reply = () => AWAY;
    await bench.proof.prove(standing("t"));
    expect(store.proofs.size).toBe(0);
    expect(store.held).toBe(false);
  });

  it("that recall a smaller size than they knew doubt what they said since", async () => {
    const store = new Store();
    const bench = new Bench(shared(store));
    await bench.proof.prove(standing("t"));
    bench.now += 6 * HOUR;
    const other = new Bench(shared(store)).scansUpTo(5 * MEBIBYTE);
    other.now = bench.now - 1000;
    store.proofs.clear();
    const size = await other.proof.prove(standing("t"));
    expect(await bench.proof.prove(standing("t"))).toBe(size);
    expect(bench.sent).toHaveLength(2);
    expect(bench.doubts(START + HOUR)).toBe(true);
  });
});
