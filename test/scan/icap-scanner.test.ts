import { describe, expect, it } from "vitest";
import { signatureService } from "../../icap/index.ts";
import { GatewayError } from "../../src/errors.ts";
import { EICAR } from "../../src/scan/canary-samples.ts";
import type { ScanSubject } from "../../src/scan/scanner.ts";
import { Antivirus, scannerOf, subject } from "../support/antivirus.ts";

const SIGNAL = new AbortController().signal;
const HARMLESS = Buffer.from("harmless");
const unavailable = expect.objectContaining({ code: "scanner_unavailable" } satisfies Partial<GatewayError>);

describe("an ICAP service is believed only while it catches its canaries", () => {
  it("tells clean from infected, stamped with the ISTag", async () => {
    await using antivirus = new Antivirus();
    const { scanner, entries } = await scannerOf([await antivirus.start()]);
    expect(scanner.health()).toMatchObject({ ready: true });
    expect(await scanner.scan(subject(HARMLESS), SIGNAL)).toMatchObject({ outcome: "clean", stamp: { tag: "tag-1" } });
    expect(await scanner.scan(subject(EICAR), SIGNAL)).toMatchObject({ outcome: "infected", threat: "Eicar" });
    expect(entries[0]).toEqual({ what: "proven", why: "tag-1" });
  });

  it("one whose engine is gone and that says 204 to everything is broken, blocks, and says what to do", async () => {
    await using antivirus = new Antivirus();
    antivirus.blind = true;
    const { scanner, entries } = await scannerOf([await antivirus.start()]);
    await expect(scanner.scan(subject(HARMLESS), SIGNAL)).rejects.toEqual(unavailable);
    expect(scanner.health().ready).toBe(false);
    expect(scanner.health().problems.join()).toMatch(/scans nothing.*engine/);
    expect(entries[0]?.what).toBe("broken");
    antivirus.blind = false;
    await expect.poll(() => scanner.health().ready, { timeout: 10_000 }).toBe(true);
    expect(await scanner.scan(subject(HARMLESS), SIGNAL)).toMatchObject({ outcome: "clean" });
  });

  it("one that misses only the PDF is broken too", async () => {
    await using antivirus = new Antivirus();
    antivirus.before = (body) => void (antivirus.blind = body.subarray(0, 5).toString() === "%PDF-");
    const { scanner } = await scannerOf([await antivirus.start()]);
    expect(scanner.health()).toMatchObject({ ready: false, problems: [expect.stringContaining("PDF")] });
  });

  it("a new ISTag counts only after its canaries: they go first, then the media again", async () => {
    await using antivirus = new Antivirus();
    const { scanner } = await scannerOf([await antivirus.start()]);
    const before = await scanner.scan(subject(HARMLESS), SIGNAL);
    // The five canaries of the first tag, the harmless file and the media.
    await expect.poll(() => antivirus.seen.length).toBe(7);
    antivirus.tag = "tag-2";
    antivirus.seen.length = 0;
    const after = await scanner.scan(subject(HARMLESS), SIGNAL);
    expect(after).toMatchObject({ outcome: "clean", stamp: { tag: "tag-2" } });
    const order = antivirus.seen.map((body) => (body.equals(HARMLESS) ? "media" : "canary"));
    expect(order[0]).toBe("media");
    expect(order.indexOf("media", 1)).toBeGreaterThanOrEqual(4);
    expect(scanner.upholds(before.stamp, "clean")).toBe(false);
    expect(scanner.upholds(after.stamp, "clean")).toBe(true);
  });

  it("a new ISTag whose canaries come back clean is never believed", async () => {
    await using antivirus = new Antivirus();
    const { scanner } = await scannerOf([await antivirus.start()]);
    antivirus.tag = "tag-2";
    antivirus.blind = true;
    await expect(scanner.scan(subject(EICAR), SIGNAL)).rejects.toEqual(unavailable);
    expect(scanner.health().ready).toBe(false);
  });

  it("an ISTag that changes with each answer gets no verdict believed", async () => {
    await using antivirus = new Antivirus();
    const { scanner } = await scannerOf([await antivirus.start()]);
    let count = 0;
    antivirus.before = () => void (antivirus.tag = `changing-${(count += 1)}`);
    await expect(scanner.scan(subject(HARMLESS), SIGNAL)).rejects.toEqual(unavailable);
  });

  it("clean verdicts given between the last pass and the failure after it are void; older ones stand", async () => {
    let now = 1_000_000;
    await using antivirus = new Antivirus();
    const { scanner } = await scannerOf([await antivirus.start()], { clock: () => now, canaryInterval: 50 });
    const old = { tag: "tag-1", at: now - 10 };
    expect(scanner.upholds(old, "clean")).toBe(true);
    now += 60_000;
    antivirus.blind = true;
    const doubtful = await scanner.scan(subject(EICAR), SIGNAL);
    expect(doubtful.outcome).toBe("clean");
    await expect.poll(() => scanner.health().ready, { timeout: 10_000 }).toBe(false);
    antivirus.blind = false;
    await expect.poll(() => scanner.health().ready, { timeout: 10_000 }).toBe(true);
    expect(scanner.upholds(doubtful.stamp, "clean")).toBe(false);
    expect(scanner.upholds(old, "clean")).toBe(true);
  });

  it("one that errs is down, not broken: it blocks, keeps what it said before, and comes back by itself", async () => {
    await using antivirus = new Antivirus();
    const { scanner, entries } = await scannerOf([await antivirus.start()], { canaryInterval: 50 });
    const before = { tag: "tag-1", at: 0 };
    antivirus.failing = true;
    await expect(scanner.scan(subject(HARMLESS), SIGNAL)).rejects.toEqual(unavailable);
    await expect.poll(() => scanner.health().ready, { timeout: 10_000 }).toBe(false);
    expect(entries.at(-1)?.what).toBe("down");
    expect(scanner.upholds(before, "clean")).toBe(true);
    antivirus.failing = false;
    await expect.poll(() => scanner.health().ready, { timeout: 10_000 }).toBe(true);
  });

  it("one that can't be reached is down, and used again once it is back", async () => {
    const antivirus = new Antivirus();
    const url = await antivirus.start();
    const { scanner, entries } = await scannerOf([url]);
    await antivirus[Symbol.asyncDispose]();
    await expect(scanner.scan(subject(HARMLESS), SIGNAL)).rejects.toEqual(unavailable);
    await expect.poll(() => entries.at(-1)?.what, { timeout: 10_000 }).toBe("down");
    await antivirus.start();
    await using _running = antivirus;
    await expect.poll(() => scanner.health().ready, { timeout: 20_000 }).toBe(true);
    expect(await scanner.scan(subject(HARMLESS), SIGNAL)).toMatchObject({ outcome: "clean" });
  });

  it("another replica takes over from one that is away, and from one that is blind", async () => {
    await using second = new Antivirus();
    const first = new Antivirus();
    const secondUrl = await second.start();
    const { scanner } = await scannerOf([await first.start(), secondUrl]);
    await first[Symbol.asyncDispose]();
    expect(await scanner.scan(subject(EICAR), SIGNAL)).toMatchObject({ outcome: "infected" });
    await using blind = new Antivirus();
    blind.blind = true;
    const other = await scannerOf([await blind.start(), secondUrl]);
    expect(await other.scanner.scan(subject(EICAR), SIGNAL)).toMatchObject({ outcome: "infected" });
    expect(other.scanner.health().problems.join()).toContain("scans nothing");
  });

  it("a verdict given while one replica may not have worked is not upheld by another with the same tag", async () => {
    await using healthy = new Antivirus();
    await using failing = new Antivirus();
    const { scanner } = await scannerOf([await failing.start(), await healthy.start()], { canaryInterval: 50 });
    failing.blind = true;
    let doubtful = await scanner.scan(subject(EICAR), SIGNAL);
    while (doubtful.outcome !== "clean") doubtful = await scanner.scan(subject(EICAR), SIGNAL);
    await expect.poll(() => scanner.health().problems.join(), { timeout: 10_000 }).toContain("scans nothing");
    expect(scanner.health().ready).toBe(true);
    expect(scanner.upholds(doubtful.stamp, "clean")).toBe(false);
  });

  it("an answer that spans a failure and the next proof under the same tag is not believed", async () => {
    await using antivirus = new Antivirus();
    const { scanner } = await scannerOf([await antivirus.start()], { canaryInterval: 50 });
    const held = Promise.withResolvers<void>();
    const media = Buffer.from("held");
    antivirus.hold = async (body) => {
      if (body.equals(media)) await held.promise;
    };
    antivirus.blind = true;
    const verdict = scanner.scan(subject(media), SIGNAL);
    // Nobody waits for an answer that can't count, and there is no other replica.
    const refused = expect(verdict).rejects.toEqual(unavailable);
    await expect.poll(() => scanner.health().ready, { timeout: 10_000 }).toBe(false);
    await refused;
    antivirus.blind = false;
    held.resolve();
    await expect.poll(() => scanner.health().ready, { timeout: 10_000 }).toBe(true);
    expect(await scanner.scan(subject(media), SIGNAL)).toMatchObject({ outcome: "clean" });
  });

  it("a replica that stalls does not keep the others from their work", async () => {
    await using healthy = new Antivirus();
    await using stalled = new Antivirus();
    const urls = [await stalled.start(), await healthy.start()];
    stalled.hold = () => new Promise(() => undefined);
    const { scanner } = await scannerOf(urls, { canaryTimeout: 300 });
    expect(await scanner.scan(subject(EICAR), SIGNAL)).toMatchObject({ outcome: "infected" });
  });

  it("all canaries are sent whatever the first came to: an engine that fails at one may acquit the next", async () => {
    await using antivirus = new Antivirus();
    antivirus.before = (body) => {
      antivirus.failing = body.subarray(0, 2).toString() === "PK";
      antivirus.blind = body.subarray(0, 5).toString() === "%PDF-";
    };
    const { scanner, entries } = await scannerOf([await antivirus.start()]);
    expect(entries.at(-1)).toEqual({ what: "broken", why: expect.stringContaining("PDF") });
    expect(scanner.health().ready).toBe(false);
  });

  it("a canary that is answered with an error makes what was said since the last pass void", async () => {
    await using antivirus = new Antivirus();
    const { scanner } = await scannerOf([await antivirus.start()], { canaryInterval: 50, clock: () => 1000 });
    const { stamp } = await scanner.scan(subject(HARMLESS), SIGNAL);
    expect(scanner.upholds(stamp, "clean")).toBe(true);
    antivirus.failing = true;
    await expect.poll(() => scanner.health().ready, { timeout: 10_000 }).toBe(false);
    antivirus.failing = false;
    await expect.poll(() => scanner.health().ready, { timeout: 10_000 }).toBe(true);
    expect(scanner.upholds(stamp, "clean")).toBe(false);
  });

  it("what it found infected stays so while its engine is gone: only its clean verdicts are doubtful then", async () => {
    await using antivirus = new Antivirus();
    const { scanner } = await scannerOf([await antivirus.start()], { canaryInterval: 50, clock: () => 1000 });
    const { stamp } = await scanner.scan(subject(EICAR), SIGNAL);
    antivirus.failing = true;
    await expect.poll(() => scanner.health().ready, { timeout: 10_000 }).toBe(false);
    expect([scanner.upholds(stamp, "clean"), scanner.upholds(stamp, "infected")]).toEqual([false, true]);
    expect(scanner.health().problems.join()).toContain("engine");
  });

  it("a replica that does not work and is not used makes no verdict of another doubtful", async () => {
    await using healthy = new Antivirus();
    await using blind = new Antivirus();
    blind.blind = true;
    const { scanner, entries } = await scannerOf([await blind.start(), await healthy.start()], { canaryInterval: 50 });
    const { stamp } = await scanner.scan(subject(HARMLESS), SIGNAL);
    const asked = blind.seen.length;
    await expect.poll(() => blind.seen.length, { timeout: 10_000 }).toBeGreaterThan(asked + 4);
    expect(entries.map(({ what }) => what)).toContain("broken");
    expect(scanner.upholds(stamp, "clean")).toBe(true);
  });

  it("one that fails at a canary and is then gone makes its clean verdicts doubtful all the same", async () => {
    const antivirus = new Antivirus();
    const { scanner } = await scannerOf([await antivirus.start()], { canaryInterval: 50, clock: () => 1000, canaryTimeout: 300 });
    const { stamp } = await scanner.scan(subject(HARMLESS), SIGNAL);
    antivirus.before = (body) => void (antivirus.failing = !body.includes("PK"));
    antivirus.hold = (body) => (body.includes("PK") ? new Promise(() => undefined) : Promise.resolve());
    await expect.poll(() => scanner.health().ready, { timeout: 10_000 }).toBe(false);
    antivirus.before = () => void (antivirus.failing = false);
    antivirus.hold = () => Promise.resolve();
    await expect.poll(() => scanner.health().ready, { timeout: 20_000 }).toBe(true);
    expect(scanner.upholds(stamp, "clean")).toBe(false);
    await antivirus[Symbol.asyncDispose]();
  });

  it("one that reports everything as infected is broken too", async () => {
    await using antivirus = new Antivirus();
    antivirus.table = signatureService({
      signatures: [
        { threat: "Everything", contains: Buffer.from("a") },
        { threat: "Eicar", contains: EICAR },
      ],
      table: { isTag: "x" },
    });
    const { scanner } = await scannerOf([await antivirus.start()]);
    expect(scanner.health()).toMatchObject({ ready: false, problems: [expect.stringContaining("harmless")] });
    expect(scanner.upholds({ tag: "x", at: 0 }, "infected")).toBe(false);
  });

  it("a block page without a word is no failure of the scanner, and no verdict of another replica overrules it", async () => {
    await using dlp = new Antivirus();
    await using other = new Antivirus();
    const { scanner } = await scannerOf([await dlp.start(), await other.start()], { canaries: [] });
    dlp.page = true;
    other.page = true;
    expect(await scanner.scan(subject(HARMLESS), SIGNAL)).toMatchObject({ outcome: "modified" });
  });

  it("OPTIONS is asked with each proof, so that an ISTag which only OPTIONS names is noticed", async () => {
    await using antivirus = new Antivirus();
    const { scanner } = await scannerOf([await antivirus.start()], { canaryInterval: 50 });
    const tags = antivirus.tagsAsked;
    await expect.poll(() => antivirus.tagsAsked, { timeout: 10_000 }).toBeGreaterThan(tags + 2);
    expect(scanner.health().ready).toBe(true);
  });

  it("what it is not required to catch is told, not punished; unless it is required", async () => {
    await using antivirus = new Antivirus();
    antivirus.before = (body) => void (antivirus.blind = body.length > 100_000);
    const url = await antivirus.start();
    const { scanner, entries } = await scannerOf([url]);
    await expect.poll(() => entries.map(({ why }) => why)).toContain("expand");
    expect(scanner.health().ready).toBe(true);
    expect(scanner.health().problems.join()).toContain("AlertExceedsMax");
    const strict = await scannerOf([url], { canaries: ["plain", "expand"] });
    expect(strict.scanner.health().ready).toBe(false);
  });

  it("a DLP service without canaries is used once it answers", async () => {
    await using antivirus = new Antivirus();
    antivirus.blind = true;
    const { scanner } = await scannerOf([await antivirus.start()], { canaries: [] });
    expect(scanner.health().ready).toBe(true);
    expect(await scanner.scan(subject(HARMLESS), SIGNAL)).toMatchObject({ outcome: "clean" });
  });

  it("what goes wrong with the media comes through as it is", async () => {
    await using antivirus = new Antivirus();
    const { scanner } = await scannerOf([await antivirus.start()]);
    const failure = new GatewayError("homeserver_failed");
    const cut: ScanSubject = {
      size: 100,
      type: undefined,
      open: async function* () {
        yield Buffer.alloc(10);
        throw failure;
      },
    };
    await expect(scanner.scan(cut, SIGNAL)).rejects.toBe(failure);
    const reason = new Error("stopped");
    const stopped = AbortSignal.abort(reason);
    await expect(scanner.scan(subject(HARMLESS), stopped)).rejects.toBe(reason);
  });
});
