import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { IcapError, type IcapScanResult, IcapService } from "../../icap/index.ts";
import { buildCanary } from "../../src/scan/canary-samples.ts";
import { type CIcap, startCIcap } from "../support/peers/c-icap.ts";
import { type Clamd, EICAR_THREAT, startClamd } from "../support/peers/clamd.ts";
import { tar } from "../support/peers/tar.ts";

const MB = 1_000_000;
const INFECTED = { outcome: "infected", threat: EICAR_THREAT };
const CLEAN = { outcome: "clean", how: "204" };

/** A tar of that many random bytes and then EICAR in a zip. */
function infectedAtTheEnd(size: number): Buffer {
  return tar(["noise.bin", randomBytes(size)], ["last.zip", buildCanary("zip").bytes]);
}

interface Steps {
  /** Runs before the second half of the body is given out. */
  readonly halfway?: () => Promise<void>;
  /** Runs when all of the body has been given out, while the answer is awaited. */
  readonly sent?: () => Promise<void>;
}

/** Scans by a client of its own, so that no connection is left from an earlier one. */
async function scan(url: string, bytes: Buffer, steps: Steps = {}): Promise<IcapScanResult> {
  await using service = new IcapService({ url });
  let whenSent: Promise<void> | undefined;
  async function* body(): AsyncGenerator<Uint8Array> {
    const half = Math.floor(bytes.length / 2);
    yield bytes.subarray(0, half);
    await steps.halfway?.();
    yield bytes.subarray(half);
    whenSent = steps.sent?.();
  }
  const request = { body, size: bytes.length, contentType: "application/octet-stream", fileName: "media.bin" };
  try {
    return await service.scan({ ...request, signal: AbortSignal.timeout(50_000) });
  } finally {
    await whenSent;
  }
}

const verdict = async (url: string, bytes: Buffer, steps?: Steps): Promise<unknown> => (await scan(url, bytes, steps)).verdict;

/** The verdict's outcome, or `none` where the client could get none. */
async function outcome(url: string, bytes: Buffer, steps: Steps): Promise<string> {
  try {
    return (await scan(url, bytes, steps)).verdict.outcome;
  } catch (error) {
    // A connection that was kept from OPTIONS is made anew once, which then fails.
    if (error instanceof IcapError && ["closed_early", "connect_failed"].includes(error.code)) return "none";
    throw error;
  }
}

describe("c-icap and clamd as they ship in docker/", () => {
  let clamd: Clamd;
  let cIcap: CIcap;
  beforeAll(async () => {
    clamd = await startClamd();
    cIcap = await startCIcap({ clamd });
  });
  afterAll(async () => {
    await cIcap?.stop();
    await clamd?.stop();
  });

  it("say of an archive that unpacks to too much that they could not look", async () => {
    expect(await verdict(cIcap.url(), buildCanary("expand").bytes)).toMatchObject({ outcome: "unscannable" });
  });

  it("acquit 50 MB that are clean", async () => {
    expect(await verdict(cIcap.url(), randomBytes(50 * MB))).toEqual(CLEAN);
  });

  it("find EICAR in a zip behind 50 MB", async () => {
    expect(await verdict(cIcap.url(), infectedAtTheEnd(50 * MB))).toEqual(INFECTED);
  });

  it("scan many at once, over few connections, without a mix-up", async () => {
    await using service = new IcapService({ url: cIcap.url(), maxConnections: 3 });
    const bodies = Array.from({ length: 30 }, (_, index) => (index % 3 === 0 ? buildCanary("zip").bytes : randomBytes(20_000 + index)));
    const results = await Promise.all(
      bodies.map((bytes) =>
        service.scan({
          body: async function* body() {
            yield bytes;
          },
          size: bytes.length,
          contentType: "application/octet-stream",
          fileName: "media.bin",
          signal: AbortSignal.timeout(50_000),
        }),
      ),
    );
    expect(results.map((result) => result.verdict)).toEqual(bodies.map((_, index) => (index % 3 === 0 ? INFECTED : CLEAN)));
    expect(service.stats()).toMatchObject({ busy: 0, waiting: 0 });
  });

  it("give another ISTag once c-icap has seen new signatures", async () => {
    const before = await scan(cIcap.url(), Buffer.from("a new threat"));
    expect(before.verdict).toEqual(CLEAN);
    await clamd.addSignature("New-Threat", Buffer.from("a new threat"));
    const between = await scan(cIcap.url(), Buffer.from("a new threat"));
    expect(between).toMatchObject({ verdict: { outcome: "infected", threat: "New-Threat.UNOFFICIAL" }, isTag: before.isTag });
    await cIcap.restart();
    const after = await scan(cIcap.url(), Buffer.from("a new threat"));
    expect(after.verdict).toEqual(between.verdict);
    expect(after.isTag).not.toBe(before.isTag);
  });
});

describe("clamd that is not there", () => {
  it("when c-icap starts: EICAR is acquitted, and still is when clamd comes up, until c-icap starts again", async () => {
    await using clamd = await startClamd({ started: false });
    await using cIcap = await startCIcap({ clamd });
    // What the canaries are for: no answer tells this from a clean file.
    const silent = { verdict: CLEAN, isTag: "CI0001-1B2M2Y8AsgTpgAmY7PhCfgAA" };
    expect(await scan(cIcap.url(), buildCanary("plain").bytes)).toMatchObject(silent);
    await clamd.restart();
    expect(await scan(cIcap.url(), buildCanary("plain").bytes)).toMatchObject(silent);
    await cIcap.restart();
    expect(await verdict(cIcap.url(), buildCanary("plain").bytes)).toEqual(INFECTED);
  });

  it("any more: nothing is acquitted, and all is well once it is back", async () => {
    await using clamd = await startClamd();
    await using cIcap = await startCIcap({ clamd });
    await clamd.kill();
    expect(await verdict(cIcap.url(), Buffer.from("harmless"))).toMatchObject({ outcome: "error" });
    expect(await verdict(cIcap.url(), buildCanary("zip").bytes)).toMatchObject({ outcome: "error" });
    await clamd.restart();
    expect(await verdict(cIcap.url(), Buffer.from("harmless"))).toEqual(CLEAN);
    expect(await verdict(cIcap.url(), buildCanary("zip").bytes)).toEqual(INFECTED);
  });
});

describe("killed in mid-scan", () => {
  let clamd: Clamd;
  let cIcap: CIcap;
  beforeAll(async () => {
    clamd = await startClamd();
    cIcap = await startCIcap({ clamd });
  });
  afterAll(async () => {
    await cIcap?.stop();
    await clamd?.stop();
  });

  const clean = randomBytes(2 * MB);
  const infected = infectedAtTheEnd(2 * MB);
  it.each([
    ["clean", clean],
    ["infected", infected],
  ])("clamd, while the body is sent: %s", async (_, bytes) => {
    expect(await outcome(cIcap.url(), bytes, { halfway: () => clamd.kill() })).toBe("error");
    await clamd.restart();
    expect(await verdict(cIcap.url(), infected)).toEqual(INFECTED);
  });

  it.each([
    ["clean", clean],
    ["infected", infected],
  ])("clamd, while it scans: %s", async (_, bytes) => {
    // Stopped, it takes the file and says nothing until it is killed.
    const halfway = (): Promise<void> => clamd.kill("SIGSTOP");
    const sent = async (): Promise<void> => {
      await sleep(300);
      await clamd.kill();
    };
    expect(await outcome(cIcap.url(), bytes, { halfway, sent })).toBe("error");
    await clamd.restart();
    expect(await verdict(cIcap.url(), infected)).toEqual(INFECTED);
  });

  it.each([
    ["clean", clean],
    ["infected", infected],
  ])("c-icap, while the body is sent: %s", async (_, bytes) => {
    expect(await outcome(cIcap.url(), bytes, { halfway: () => cIcap.kill() })).toBe("none");
    await cIcap.restart();
    expect(await verdict(cIcap.url(), infected)).toEqual(INFECTED);
  });

  it.each([
    ["clean", clean],
    ["infected", infected],
  ])("c-icap, while clamd scans: %s", async (_, bytes) => {
    const halfway = (): Promise<void> => clamd.kill("SIGSTOP");
    const sent = async (): Promise<void> => {
      await sleep(300);
      await cIcap.kill();
    };
    expect(await outcome(cIcap.url(), bytes, { halfway, sent })).toBe("none");
    await clamd.kill("SIGCONT");
    await cIcap.restart();
    expect(await verdict(cIcap.url(), infected)).toEqual(INFECTED);
  });
});
