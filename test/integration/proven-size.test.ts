/** What the padded canaries find out about real c-icap and clamd, each stopped by one of its own limits. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { IcapError, IcapService } from "../../icap/index.ts";
import type { LargeCanary } from "../../src/scan/large-canary.ts";
import type { CanaryAnswer } from "../../src/scan/proof.ts";
import { SizeProof } from "../../src/scan/proven-size.ts";
import { DEBIAN_VIRUS_SCAN, startCIcap, VIRUS_SCAN } from "../support/peers/c-icap.ts";
import { type Clamd, startClamd } from "../support/peers/clamd.ts";

const MEBIBYTE = 1024 * 1024;
const WANTED = 16 * MEBIBYTE;

type Send = (canary: LargeCanary, signal: AbortSignal) => Promise<CanaryAnswer>;

interface Outcome {
  readonly size: number;
  readonly warnings: readonly string[];
}

async function prove(send: Send, tag: string): Promise<Outcome> {
  const log = { sizeProven: () => undefined };
  const options = { name: "antivirus", maxSize: WANTED, timeout: 50_000, interval: 3_600_000, log, clock: () => performance.now() };
  using proof = new SizeProof({ ...options, send });
  const size = await proof.prove({ tag, lost: new AbortController().signal });
  return { size, warnings: proof.warnings };
}

/** By ICAP, as the gateway asks. */
async function proveService(url: string): Promise<Outcome> {
  await using service = new IcapService({ url });
  const { isTag } = await service.options(AbortSignal.timeout(10_000));
  const scan: Send = async (canary, signal) => {
    const request = { body: () => canary.open(), size: canary.size, contentType: "application/octet-stream", fileName: "media", signal };
    try {
      const { verdict, isTag: tag } = await service.scan(request);
      return verdict.outcome === "error" ? { outcome: "failed", why: verdict.why } : { outcome: verdict.outcome, tag: tag ?? "" };
    } catch (error) {
      // A server that answers before it has all, and closes.
      if (error instanceof IcapError && ["closed_early", "protocol"].includes(error.code)) return { outcome: "failed", why: error.message };
      throw error;
    }
  };
  return await prove(scan, isTag ?? "");
}

/** Below the limit by 10 % at most, never above it, and told to the operator. */
function expectJustBelow({ size, warnings }: Outcome, limit: number): void {
  expect(size).toBeLessThanOrEqual(limit);
  expect(size).toBeGreaterThan((limit / 1.1) * 0.999);
  expect(warnings).toEqual([expect.stringContaining("16 MiB of scan.max_file_size")]);
}

describe("c-icap and clamd as they ship in docker/", () => {
  let clamd: Clamd;
  beforeAll(async () => {
    clamd = await startClamd();
  });
  afterAll(() => clamd?.stop());

  it("scan all that they should", async () => {
    await using cIcap = await startCIcap({ clamd });
    expect(await proveService(cIcap.url())).toEqual({ size: WANTED, warnings: [] });
  });

  it("also beyond MaxObjectSize, which sizelimit=off sets aside", async () => {
    await using cIcap = await startCIcap({ clamd, settings: { "virus_scan.MaxObjectSize": "5M" } });
    expect(await proveService(cIcap.url())).toEqual({ size: WANTED, warnings: [] });
  });

  it("up to MaxObjectSize where nothing sets that aside", async () => {
    await using cIcap = await startCIcap({ clamd, settings: { "virus_scan.MaxObjectSize": "5M" } });
    expectJustBelow(await proveService(cIcap.url(VIRUS_SCAN.replace("sizelimit=off&", ""))), 5 * MEBIBYTE);
  });

  it("up to where c-icap begins to answer before it has scanned", async () => {
    await using cIcap = await startCIcap({ clamd, settings: DEBIAN_VIRUS_SCAN });
    expectJustBelow(await proveService(cIcap.url("virus_scan")), 2 * MEBIBYTE);
  });
});

describe.each([
  ["tells of what it does not scan (AlertExceedsMax yes)", "yes"],
  ["keeps silent about it", undefined],
])("clamd that %s", (_, AlertExceedsMax) => {
  it("up to MaxFileSize", async () => {
    await using clamd = await startClamd({ settings: { MaxFileSize: "6M", AlertExceedsMax } });
    await using cIcap = await startCIcap({ clamd });
    expectJustBelow(await proveService(cIcap.url()), 6 * MEBIBYTE);
  });

  it("up to half of MaxScanSize, which an archive and what is unpacked from it share", async () => {
    await using clamd = await startClamd({ settings: { MaxScanSize: "10M", AlertExceedsMax } });
    await using cIcap = await startCIcap({ clamd });
    expectJustBelow(await proveService(cIcap.url()), 5 * MEBIBYTE);
  });

  it("all, by c-icap, whatever StreamMaxLength says: it hands over files; up to that where they are streamed", async () => {
    await using clamd = await startClamd({ settings: { StreamMaxLength: "4M", AlertExceedsMax } });
    await using cIcap = await startCIcap({ clamd });
    expect(await proveService(cIcap.url())).toEqual({ size: WANTED, warnings: [] });
    const stream: Send = async (canary) => {
      const answer = await clamd.scan(Buffer.concat(await Array.fromAsync(canary.open()))).catch((error: unknown) => String(error));
      if (answer.endsWith("FOUND")) return { outcome: answer.includes("Eicar") ? "infected" : "unscannable", tag: "" };
      return answer.endsWith("OK") ? { outcome: "clean", tag: "" } : { outcome: "failed", why: answer };
    };
    expectJustBelow(await prove(stream, ""), 4 * MEBIBYTE);
  });
});
