import { describe, expect, it } from "vitest";
import type { GatewayError } from "../../src/errors.ts";
import { EICAR } from "../../src/scan/canary-samples.ts";
import type { IcapScanner, ReplicaStatus } from "../../src/scan/icap-scanner.ts";
import { Antivirus, scannerOf, subject } from "../support/antivirus.ts";

const SIGNAL = new AbortController().signal;
const MEDIA = Buffer.from("some media");
const unavailable = expect.objectContaining({ code: "scanner_unavailable" } satisfies Partial<GatewayError>);
const SOON = { timeout: 20_000 };
const never = (): Promise<never> => new Promise(() => undefined);

function statesOf(scanner: IcapScanner): ReplicaStatus["state"][] {
  return scanner.replicas().map(({ state }) => state);
}

/** How often it got the media. */
function asked(antivirus: Antivirus): number {
  return antivirus.seen.filter((body) => body.equals(MEDIA)).length;
}

/** Answers what is not the media only. */
function holdMedia(antivirus: Antivirus, until: Promise<unknown>): void {
  antivirus.hold = async (body) => {
    if (body.equals(MEDIA)) await until;
  };
}

/** Has its canaries caught, and answers all else with an error. */
function failAtMedia(antivirus: Antivirus): void {
  antivirus.before = (body) => void (antivirus.failing = body.equals(MEDIA));
}

describe("replicas of one service", () => {
  it("the least busy one is asked", async () => {
    await using first = new Antivirus();
    await using second = new Antivirus();
    const { scanner } = await scannerOf([await first.start(), await second.start()]);
    const held = Promise.withResolvers<void>();
    holdMedia(first, held.promise);
    const one = scanner.scan(subject(MEDIA), SIGNAL);
    await expect.poll(() => asked(first), SOON).toBe(1);
    await scanner.scan(subject(MEDIA), SIGNAL);
    expect([asked(first), asked(second)]).toEqual([1, 1]);
    held.resolve();
    expect(await one).toMatchObject({ outcome: "clean" });
  });

  it("another one is asked when one answers with an error, and when one breaks off", async () => {
    await using first = new Antivirus();
    await using second = new Antivirus();
    const { scanner } = await scannerOf([await first.start(), await second.start()]);
    failAtMedia(first);
    expect(await scanner.scan(subject(MEDIA), SIGNAL)).toMatchObject({ outcome: "clean" });
    expect([asked(first), asked(second)]).toEqual([1, 1]);
    first.before = (body) => void (body.equals(MEDIA) && first[Symbol.asyncDispose]());
    expect(await scanner.scan(subject(MEDIA), SIGNAL)).toMatchObject({ outcome: "clean" });
    expect([asked(first), asked(second)]).toEqual([2, 2]);
  });

  it("one that keeps a scan waiting: another one is asked as well, the first verdict counts, and the other scan is ended", async () => {
    await using first = new Antivirus();
    await using second = new Antivirus();
    const urls = [await first.start(), await second.start()];
    const { scanner } = await scannerOf(urls, {
      services: urls.map((url) => ({ url, maxConnections: 2, reservedConnections: 1 })),
      patience: () => 50,
    });
    holdMedia(first, never());
    expect(await scanner.scan(subject(MEDIA), SIGNAL)).toMatchObject({ outcome: "clean" });
    expect([asked(first), asked(second)]).toEqual([1, 1]);
    first.hold = () => Promise.resolve();
    // Its only connection is free again, and it answers its canaries: it was slow, not down.
    const next = async (): Promise<number> => {
      await scanner.scan(subject(MEDIA), SIGNAL);
      return asked(first);
    };
    await expect.poll(next, SOON).toBe(2);
    expect(statesOf(scanner)).toEqual(["up", "up"]);
  });

  it("the one that was asked first may still win", async () => {
    await using first = new Antivirus();
    await using second = new Antivirus();
    const { scanner } = await scannerOf([await first.start(), await second.start()], { patience: () => 50 });
    const held = Promise.withResolvers<void>();
    holdMedia(first, held.promise);
    holdMedia(second, never());
    const verdict = scanner.scan(subject(MEDIA), SIGNAL);
    await expect.poll(() => asked(second), SOON).toBe(1);
    held.resolve();
    expect(await verdict).toMatchObject({ outcome: "clean" });
  });

  it("infected is never outvoted: what one of two that are asked says first is the verdict", async () => {
    await using first = new Antivirus();
    await using second = new Antivirus();
    const { scanner } = await scannerOf([await first.start(), await second.start()], { patience: () => 50 });
    first.hold = (body) => (body.equals(EICAR) ? never() : Promise.resolve());
    expect(await scanner.scan(subject(EICAR), SIGNAL)).toMatchObject({ outcome: "infected" });
  });

  it("one that has no room is not asked as well before it has", async () => {
    await using first = new Antivirus();
    await using second = new Antivirus();
    const urls = [await first.start(), await second.start()];
    const { scanner } = await scannerOf(urls, {
      services: urls.map((url) => ({ url, maxConnections: 2, reservedConnections: 1, maxWaiting: 0 })),
      patience: (size) => (size === MEDIA.length ? 50 : 2 ** 30),
    });
    const busy = Promise.withResolvers<void>();
    first.hold = (body) => (body.includes("other") ? busy.promise : Promise.resolve());
    holdMedia(second, never());
    const other = scanner.scan(subject(Buffer.from("other media that is scanned meanwhile")), SIGNAL);
    await expect.poll(() => first.seen.some((body) => body.includes("other")), SOON).toBe(true);
    const canaries = second.seen.length;
    const verdict = scanner.scan(subject(MEDIA), SIGNAL);
    // It has kept the scan waiting for so long that it was sent its canaries.
    await expect.poll(() => second.seen.length, SOON).toBeGreaterThan(canaries + 3);
    expect([asked(first), asked(second)]).toEqual([0, 1]);
    busy.resolve();
    expect(await other).toMatchObject({ outcome: "clean" });
    expect(await verdict).toMatchObject({ outcome: "clean" });
    expect(asked(first)).toBe(1);
  });

  it("one that has just kept a scan waiting comes after all others, however busy, until it has proven itself again", async () => {
    await using first = new Antivirus();
    await using second = new Antivirus();
    const { scanner } = await scannerOf([await first.start(), await second.start()], {
      patience: (size) => (size === MEDIA.length ? 50 : 2 ** 30),
    });
    first.hold = never;
    expect(await scanner.scan(subject(MEDIA), SIGNAL)).toMatchObject({ outcome: "clean" });
    const held = Promise.withResolvers<void>();
    second.hold = (body) => (body.includes("other") ? held.promise : Promise.resolve());
    const others = Array.from({ length: 4 }, () => scanner.scan(subject(Buffer.from("other media that takes long")), SIGNAL));
    await expect.poll(() => second.seen.filter((body) => body.includes("other")).length, SOON).toBe(4);
    for (let scan = 0; scan < 3; scan += 1) expect(await scanner.scan(subject(MEDIA), SIGNAL)).toMatchObject({ outcome: "clean" });
    expect([asked(first), asked(second)]).toEqual([1, 4]);
    held.resolve();
    await Promise.all(others);
  });

  it("one that answers its canaries, and no scan in time, is left alone as well", async () => {
    await using first = new Antivirus();
    await using second = new Antivirus();
    const { scanner } = await scannerOf([await first.start(), await second.start()], {
      patience: () => 50,
      suspend: { failures: 2, within: 60_000, pause: 3_600_000, maxPause: 3_600_000 },
    });
    holdMedia(first, never());
    const next = async (): Promise<string | undefined> => {
      await scanner.scan(subject(MEDIA), SIGNAL);
      return statesOf(scanner)[0];
    };
    await expect.poll(next, SOON).toBe("suspended");
    expect(asked(first)).toBe(2);
  });

  it("one that is slow at one file, and answers others meanwhile, is not", async () => {
    await using first = new Antivirus();
    await using second = new Antivirus();
    const { scanner } = await scannerOf([await first.start(), await second.start()], {
      patience: (size) => (size === MEDIA.length ? 50 : 2 ** 30),
      suspend: { failures: 1, within: 60_000, pause: 3_600_000, maxPause: 3_600_000 },
    });
    const held = Promise.withResolvers<void>();
    holdMedia(first, never());
    holdMedia(second, held.promise);
    const verdict = scanner.scan(subject(MEDIA), SIGNAL);
    await expect.poll(() => asked(second), SOON).toBe(1);
    const others = Buffer.from("what others have scanned");
    while (!first.seen.some((body) => body.equals(others))) await scanner.scan(subject(others), SIGNAL);
    held.resolve();
    expect(await verdict).toMatchObject({ outcome: "clean" });
    expect(statesOf(scanner)).toEqual(["up", "up"]);
  });

  it("one that hangs is found to be down, and comes back by itself", async () => {
    await using first = new Antivirus();
    await using second = new Antivirus();
    const { scanner, entries } = await scannerOf([await first.start(), await second.start()], { patience: () => 50, canaryTimeout: 300 });
    first.hold = never;
    expect(await scanner.scan(subject(MEDIA), SIGNAL)).toMatchObject({ outcome: "clean" });
    await expect.poll(() => entries.at(-1)?.what, SOON).toBe("down");
    expect(statesOf(scanner)[1]).toBe("up");
    expect(scanner.health()).toMatchObject({ ready: true });
    expect(scanner.health().problems.join()).toContain("not answered in time");
    first.hold = () => Promise.resolve();
    await expect.poll(() => statesOf(scanner), SOON).toEqual(["up", "up"]);
  });

  it("scans move on at once from one that is found to be down, however long they could wait for its answer", async () => {
    await using first = new Antivirus();
    await using second = new Antivirus();
    const { scanner } = await scannerOf([await first.start(), await second.start()], {
      patience: () => 2 ** 30,
      canaryInterval: 50,
      canaryTimeout: 300,
    });
    first.hold = never;
    const verdict = scanner.scan(subject(MEDIA), SIGNAL);
    expect(await verdict).toMatchObject({ outcome: "clean" });
    expect([asked(first), asked(second)]).toEqual([1, 1]);
  });

  it("every scan under way ends with the standing that it was asked under, and it is asked again once it stands", async () => {
    await using only = new Antivirus();
    const { scanner } = await scannerOf([await only.start()], { canaryInterval: 50, canaryTimeout: 300 });
    only.hold = never;
    const scans = [1, 2, 3].map(() => scanner.scan(subject(MEDIA), SIGNAL));
    const ends = await Promise.allSettled(scans);
    expect(ends).toMatchObject(scans.map(() => ({ status: "rejected", reason: { code: "scanner_unavailable" } })));
    expect(scanner.health().ready).toBe(false);
    only.hold = () => Promise.resolve();
    await expect.poll(() => scanner.health().ready, SOON).toBe(true);
    expect(await scanner.scan(subject(MEDIA), SIGNAL)).toMatchObject({ outcome: "clean" });
  });

  it("one that fails at scans which another can do is left alone, for longer each time, although its canaries pass", async () => {
    await using first = new Antivirus();
    await using second = new Antivirus();
    let now = 1_000_000;
    const { scanner, entries } = await scannerOf([await first.start(), await second.start()], {
      suspend: { failures: 3, within: 30_000, pause: 300, maxPause: 3_600_000 },
      clock: () => (now += 1),
    });
    failAtMedia(first);
    for (let scan = 0; scan < 3; scan += 1) expect(await scanner.scan(subject(MEDIA), SIGNAL)).toMatchObject({ outcome: "clean" });
    expect(statesOf(scanner)).toEqual(["suspended", "up"]);
    expect(scanner.health()).toMatchObject({ ready: true });
    expect(scanner.health().problems.join()).toContain("3 scans failed within 30 s");
    expect(entries.filter(({ what }) => what === "suspended")).toHaveLength(1);
    await scanner.scan(subject(MEDIA), SIGNAL);
    expect(asked(first)).toBe(3);
    await expect.poll(() => statesOf(scanner), SOON).toEqual(["up", "up"]);
    for (let scan = 0; scan < 3; scan += 1) await scanner.scan(subject(MEDIA), SIGNAL);
    expect(entries.findLast(({ what }) => what === "suspended")?.why).toContain("0.6 s");
  });

  it("what no replica can scan suspends none: one hostile file must not take them all away", async () => {
    await using first = new Antivirus();
    await using second = new Antivirus();
    const { scanner } = await scannerOf([await first.start(), await second.start()], {
      suspend: { failures: 2, within: 30_000, pause: 3_600_000, maxPause: 3_600_000 },
    });
    failAtMedia(first);
    failAtMedia(second);
    for (let scan = 0; scan < 5; scan += 1) await expect(scanner.scan(subject(MEDIA), SIGNAL)).rejects.toEqual(unavailable);
    expect(statesOf(scanner)).toEqual(["up", "up"]);
    expect(await scanner.scan(subject(EICAR), SIGNAL)).toMatchObject({ outcome: "infected" });
  });

  it("a suspended one is used before nobody is", async () => {
    await using first = new Antivirus();
    const second = new Antivirus();
    const { scanner } = await scannerOf([await first.start(), await second.start()], {
      suspend: { failures: 1, within: 30_000, pause: 3_600_000, maxPause: 3_600_000 },
    });
    failAtMedia(first);
    await scanner.scan(subject(MEDIA), SIGNAL);
    expect(statesOf(scanner)).toEqual(["suspended", "up"]);
    await second[Symbol.asyncDispose]();
    expect(await scanner.scan(subject(EICAR), SIGNAL)).toMatchObject({ outcome: "infected" });
    expect(statesOf(scanner)).toEqual(["up", "down"]);
  });

  it("where too many wait already, another one is asked; where all are that busy, there is no verdict, and nobody is to blame", async () => {
    await using first = new Antivirus();
    await using second = new Antivirus();
    const urls = [await first.start(), await second.start()];
    const { scanner } = await scannerOf(urls, {
      services: urls.map((url) => ({ url, maxConnections: 2, reservedConnections: 1, maxWaiting: 0 })),
    });
    const held = Promise.withResolvers<void>();
    holdMedia(first, held.promise);
    holdMedia(second, held.promise);
    const scans = [scanner.scan(subject(MEDIA), SIGNAL), scanner.scan(subject(MEDIA), SIGNAL)];
    await expect.poll(() => asked(first) + asked(second), SOON).toBe(2);
    await expect(scanner.scan(subject(MEDIA), SIGNAL)).rejects.toEqual(unavailable);
    held.resolve();
    expect(await Promise.all(scans)).toMatchObject([{ outcome: "clean" }, { outcome: "clean" }]);
    expect(statesOf(scanner)).toEqual(["up", "up"]);
  });

  it("one that has proven itself anew may be asked again by the very scan that it failed", async () => {
    await using only = new Antivirus();
    const { scanner } = await scannerOf([await only.start()]);
    let tags = 0;
    only.before = (body) => {
      if (body.equals(MEDIA) && tags < 2) only.tag = `new-${(tags += 1)}`;
    };
    expect(await scanner.scan(subject(MEDIA), SIGNAL)).toMatchObject({ outcome: "clean", stamp: { tag: "new-2" } });
    expect(asked(only)).toBe(3);
  });

  it("the media's own errors, and the end of the wait, are nobody's fault", async () => {
    await using first = new Antivirus();
    await using second = new Antivirus();
    const { scanner } = await scannerOf([await first.start(), await second.start()], {
      suspend: { failures: 1, within: 30_000, pause: 3_600_000, maxPause: 3_600_000 },
    });
    const failure = new Error("gone");
    const broken = {
      ...subject(MEDIA),
      async *open() {
        yield MEDIA.subarray(0, 1);
        throw failure;
      },
    };
    await expect(scanner.scan(broken, SIGNAL)).rejects.toBe(failure);
    const short = { ...subject(MEDIA), size: MEDIA.length + 1 };
    await expect(scanner.scan(short, SIGNAL)).rejects.toMatchObject({ code: "homeserver_failed" });
    holdMedia(first, never());
    const abort = new AbortController();
    const verdict = scanner.scan(subject(MEDIA), abort.signal);
    await expect.poll(() => asked(first), SOON).toBe(1);
    abort.abort(failure);
    await expect(verdict).rejects.toBe(failure);
    expect(statesOf(scanner)).toEqual(["up", "up"]);
    expect(asked(second)).toBe(0);
  });

  it("a scan that the end of the process meets is no scan without a verdict", async () => {
    await using only = new Antivirus();
    const { scanner } = await scannerOf([await only.start()]);
    holdMedia(only, never());
    const verdict = scanner.scan(subject(MEDIA), SIGNAL);
    const refused = expect(verdict).rejects.toMatchObject({ code: "shutting_down" });
    await expect.poll(() => asked(only), SOON).toBe(1);
    await scanner[Symbol.asyncDispose]();
    await refused;
  });
});

describe("a replica that takes one connection", () => {
  it("is not down while a scan of ours takes it for longer than canaries may", async () => {
    await using antivirus = new Antivirus();
    const slow = Buffer.from("a slow file");
    const held = Promise.withResolvers<void>();
    antivirus.hold = (body) => (body.equals(slow) ? held.promise : Promise.resolve());
    const services = [{ url: await antivirus.start(), maxConnections: 1 }];
    const { scanner, entries } = await scannerOf([], { services, canaryInterval: 50, canaryTimeout: 1000, patience: () => 50 });
    await using _scanner = scanner;
    await scanner.start();
    const scan = scanner.scan(subject(slow), new AbortController().signal);
    await expect.poll(() => antivirus.seen.some((body) => body.equals(slow))).toBe(true);
    // Several times as long as the interval and the canaries' limit.
    await new Promise((resolve) => setTimeout(resolve, 4000));
    expect(scanner.health().ready).toBe(true);
    held.resolve();
    expect((await scan).outcome).toBe("clean");
    expect(entries.filter(({ what }) => what === "down")).toEqual([]);
  });
});
