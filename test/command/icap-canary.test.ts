import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { IcapHandler } from "../../icap/index.ts";
import { CANARY_KINDS, EICAR } from "../../src/scan/canary-samples.ts";
import { type CIcap, startCIcap } from "../support/peers/c-icap.ts";
import { type Clamd, EICAR_THREAT, startClamd } from "../support/peers/clamd.ts";
import { cells, icap, jsonLines } from "./run.ts";
import { BLOCKED, CLEAN, type Services, antivirus, answering, serve } from "./services.ts";

const MIB = 1024 * 1024;

/** Finds EICAR in the first so many bytes alone. */
const looksAt = (bytes: number): IcapHandler => answering((_, body) => (body.subarray(0, bytes).includes(EICAR) ? BLOCKED : CLEAN));

interface Found {
  readonly samples: readonly { readonly sample: string; readonly result: string }[];
  readonly provenSize: unknown;
  readonly advice: readonly string[];
}

async function canary(...args: string[]): Promise<Found & { code: number | null }> {
  const { code, stdout } = await icap(["canary", ...args, "--json"]);
  const [found] = jsonLines(stdout) as [Found];
  return { ...found, code };
}

const resultsOf = ({ samples }: Found): unknown => samples.map(({ sample, result }) => `${sample} ${result}`);

describe("icap canary", () => {
  let services: Services;
  beforeAll(async () => {
    services = await serve({
      av: antivirus,
      blind: answering(CLEAN),
      paranoid: answering(BLOCKED),
      broken: answering((_, body) => (body.includes(EICAR) ? { status: 500 } : CLEAN)),
      shortSighted: looksAt(2 * MIB),
    });
  });
  afterAll(() => services[Symbol.asyncDispose]());

  it("ends with 0 when everything is caught, up to the size that was asked for", async () => {
    const { code, stdout, stderr } = await icap(["canary", services.url("av"), "--canary", "zip", "--canary", "plain", "--size", "2MiB"]);

    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const [url, table, ...rest] = stdout.split("\n\n");
    expect(url).toBe(services.url("av"));
    expect(cells(table ?? "").map(([sample, size, result, verdict]) => [sample, size, result, verdict])).toEqual([
      ["SAMPLE", "SIZE", "RESULT", "VERDICT"],
      ["harmless", expect.any(String), "passed", "clean"],
      ["plain", "68 B", "caught", "infected"],
      ["zip", expect.any(String), "caught", "infected"],
      ["large", "1 MiB", "caught", "infected"],
      ["large", "2 MiB", "caught", "infected"],
    ]);
    expect(rest.join("\n\n")).toBe("Proven size: 2 MiB, all that was asked for\n\nNothing to mend.\n");
  });

  it("ends with 1 when one is missed, and says what to set", async () => {
    const found = await canary(services.url("av"), "--size", "0");

    expect(found).toMatchObject({ code: 1, advice: [expect.stringMatching(/encrypted archive \(ClamAV: set AlertEncrypted yes\)/)] });
    expect(found.provenSize).toBeUndefined();
    expect(resultsOf(found)).toEqual([
      "harmless passed",
      ...CANARY_KINDS.map((kind) => `${kind} ${kind === "encrypted" ? "missed" : "caught"}`),
    ]);
  });

  it("finds the size up to which a service looks", async () => {
    const found = await canary(services.url("shortSighted"), "--canary", "plain", "--size", "8MiB");

    expect(found).toMatchObject({ code: 1, provenSize: { wanted: 8 * MIB, proven: expect.any(Number), complete: true } });
    const { proven } = found.provenSize as { proven: number };
    expect(proven).toBeGreaterThan(1.8 * MIB);
    expect(proven).toBeLessThanOrEqual(2 * MIB);
    expect(found.advice).toEqual([expect.stringMatching(/StreamMaxLength/)]);
  });

  it.each([
    ["passes all", "blind", ["harmless passed", "plain missed"], /it scans nothing/],
    ["blocks all", "paranoid", ["harmless blocked", "plain caught"], /its verdicts mean nothing/],
  ])("ends with 1 for a service that %s", async (_, service, results, advice) => {
    const found = await canary(services.url(service), "--canary", "plain", "--size", service === "blind" ? "2MiB" : "0");

    expect(found).toMatchObject({ code: 1, advice: [expect.stringMatching(advice)] });
    expect(resultsOf(found)).toEqual(results);
  });

  it("ends with 2 when it fails at a sample: that says neither yes nor no", async () => {
    const found = await canary(services.url("broken"), "--canary", "plain", "--size", "2MiB");

    expect(found.code).toBe(2);
    expect(resultsOf(found)).toEqual(["harmless passed", "plain unknown"]);
  });

  it("ends with 2 when nobody answers", async () => {
    expect(await icap(["canary", "icap://127.0.0.1:1/av"])).toMatchObject({
      code: 2,
      stdout: "",
      stderr: expect.stringMatching(/ECONNREFUSED/),
    });
  });
});

describe("icap canary, with c-icap and clamd as they ship in docker/", () => {
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

  it("finds nothing to mend up to 100 MiB", async () => {
    const { code, stdout } = await icap(["canary", cIcap.url(), "--size", "100MiB"]);

    expect(stdout).toMatch(/\n\nProven size: 100 MiB, all that was asked for\n\nNothing to mend\.\n$/);
    expect(stdout.split(EICAR_THREAT)).toHaveLength(1 + 5 + 2);
    expect(code).toBe(0);
  });
});
