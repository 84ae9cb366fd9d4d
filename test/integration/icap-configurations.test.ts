import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { IcapServiceOptions } from "../../icap/index.ts";
import type { CanaryKind } from "../../src/scan/canary-samples.ts";
import type { ReplicaStatus } from "../../src/scan/icap-scanner.ts";
import { type CIcap, DEBIAN_VIRUS_SCAN, startCIcap, VIRUS_SCAN } from "../support/peers/c-icap.ts";
import { type Clamd, DEBIAN_CLAMD, startClamd } from "../support/peers/clamd.ts";
import { all, ALL_FOUND, askLibrary, askScanner, behindCanaries, cellsOf, fitted, type Limit, type Samples } from "./icap-table.ts";

const MIB = 1024 * 1024;

interface Row {
  /** Path and arguments. */
  readonly service: string;
  readonly asked: Omit<IcapServiceOptions, "url">;
  readonly says: Samples;
  readonly limit?: Limit;
  /** What its canaries prove of it. Absent: as in another row. */
  readonly proof?: ReplicaStatus["state"];
  /** Beside those that the gateway requires by default. */
  readonly canaries?: readonly CanaryKind[];
}

interface Configuration {
  /** In place of what docker/c-icap/c-icap.conf says. */
  readonly cIcap?: Readonly<Record<string, string | undefined>>;
  /** In place of what docker/clamd.conf says; `absent`: it doesn't run when c-icap starts, nor later; `dies`: it ends after that. */
  readonly clamd?: Readonly<Record<string, string | undefined>> | "absent" | "dies";
  readonly rows: readonly Row[];
}

const never = { preview: "never" } as const;
const required = { preview: "required" } as const;

/** What it acquits for their types alone. */
const TYPES_NOT_SCANNED = { pdf: "lets_pass", png: "lets_pass" } as const;
/** Of large files it sends a part, or all, back before it has scanned them. */
const TRICKLED = { last3MB: "blocked", last8MB: "blocked", random3MB: "clean or error", random8MB: "clean or error" } as const;
/** Of large files it sends all back unscanned, as soon as it sees that they are. */
const TOO_LARGE = {
  last3MB: "lets_pass or error",
  last8MB: "lets_pass or error",
  random3MB: "clean or error",
  random8MB: "clean or error",
} as const;

/** As the gateway asks, but that c-icap's own limit holds: no sizelimit=off. */
const LIMITED = "virus_scan?allow204=on&force=on&mode=simple";

const CONFIGURATIONS: Readonly<Record<string, Configuration>> = {
  "the recommended one": {
    rows: [
      { service: VIRUS_SCAN, asked: never, says: ALL_FOUND, proof: "up" },
      { service: VIRUS_SCAN, asked: required, says: ALL_FOUND },
      { service: VIRUS_SCAN, asked: { ...never, method: "REQMOD" }, says: ALL_FOUND, proof: "up" },
      { service: VIRUS_SCAN, asked: { ...required, method: "REQMOD" }, says: ALL_FOUND },
    ],
  },
  "stock Debian, c-icap and clamd": {
    cIcap: DEBIAN_VIRUS_SCAN,
    clamd: DEBIAN_CLAMD,
    rows: [
      {
        service: "virus_scan",
        asked: never,
        says: { ...ALL_FOUND, ...TYPES_NOT_SCANNED, ...TRICKLED, encrypted: "lets_pass", last8MB: "lets_pass or error" },
        limit: {
          bytes: 5 * MIB,
          infected: ["blocked", "lets_pass or error", "lets_pass or error"],
          harmless: ["clean or error", "clean or error", "clean or error"],
        },
        proof: "broken",
      },
      {
        service: "virus_scan",
        asked: required,
        says: { ...ALL_FOUND, ...TYPES_NOT_SCANNED, ...TRICKLED, encrypted: "lets_pass", random8MB: "error" },
        limit: {
          bytes: 5 * MIB,
          infected: ["blocked", "lets_pass or error", "error"],
          harmless: ["clean or error", "clean or error", "error"],
        },
      },
      { service: "avscan", asked: never, says: { ...ALL_FOUND, ...TYPES_NOT_SCANNED, encrypted: "lets_pass" }, proof: "broken" },
      { service: VIRUS_SCAN, asked: never, says: { ...ALL_FOUND, encrypted: "lets_pass" }, proof: "broken", canaries: ["encrypted"] },
    ],
  },
  "MaxObjectSize of 1 MiB": {
    cIcap: { "virus_scan.MaxObjectSize": "1M" },
    rows: [
      {
        service: LIMITED,
        asked: never,
        says: { ...ALL_FOUND, ...TOO_LARGE },
        limit: { bytes: MIB, infected: ["infected", "infected", "lets_pass or error"], harmless: ["clean", "clean", "clean or error"] },
        proof: "up",
      },
      {
        service: LIMITED,
        asked: required,
        says: { ...ALL_FOUND, last3MB: "error", last8MB: "error", random3MB: "error", random8MB: "error" },
        limit: { bytes: MIB, infected: ["infected", "infected", "error"], harmless: ["clean", "clean", "error"] },
        proof: "up",
      },
      {
        service: VIRUS_SCAN,
        asked: never,
        says: ALL_FOUND,
        limit: { bytes: MIB, infected: ["infected", "infected", "infected"], harmless: ["clean", "clean", "clean"] },
      },
    ],
  },
  trickling: {
    cIcap: { "virus_scan.SendPercentData": "5", "virus_scan.StartSendPercentDataAfter": "100K" },
    rows: [
      { service: "virus_scan", asked: never, says: { ...ALL_FOUND, ...TRICKLED }, proof: "up" },
      { service: "virus_scan", asked: required, says: { ...ALL_FOUND, ...TRICKLED } },
      { service: VIRUS_SCAN, asked: never, says: ALL_FOUND },
    ],
  },
  "PassOnError on, while clamd runs": {
    cIcap: { "virus_scan.PassOnError": "on" },
    rows: [{ service: VIRUS_SCAN, asked: never, says: ALL_FOUND, proof: "up" }],
  },
  "PassOnError on, once clamd has ended": {
    cIcap: { "virus_scan.PassOnError": "on" },
    clamd: "dies",
    rows: [
      { service: VIRUS_SCAN, asked: never, says: all("lets_pass", "clean"), proof: "broken" },
      { service: VIRUS_SCAN, asked: required, says: all("lets_pass", "clean"), proof: "broken" },
    ],
  },
  "PassOnError off, once clamd has ended": {
    clamd: "dies",
    rows: [{ service: VIRUS_SCAN, asked: never, says: all("error", "error"), proof: "down" }],
  },
  "no engine": {
    clamd: "absent",
    rows: [
      {
        service: VIRUS_SCAN,
        asked: never,
        says: { ...all("lets_pass", "clean"), ...TOO_LARGE },
        proof: "broken",
      },
      {
        service: VIRUS_SCAN,
        asked: required,
        says: { ...all("lets_pass", "clean"), last3MB: "error", last8MB: "error", random3MB: "error", random8MB: "error" },
        proof: "broken",
      },
    ],
  },
  "an engine that looks at 2 MiB": {
    clamd: { MaxFileSize: "2M", AlertExceedsMax: undefined },
    rows: [{ service: VIRUS_SCAN, asked: never, says: { ...ALL_FOUND, last3MB: "lets_pass", last8MB: "lets_pass" }, proof: "up" }],
  },
  "206 allowed": {
    rows: [
      { service: "ex206", asked: never, says: { ...all("lets_pass", "clean"), ...TOO_LARGE }, proof: "broken" },
      { service: "ex206", asked: required, says: { ...all("lets_pass", "clean"), ...TOO_LARGE }, proof: "broken" },
    ],
  },
  "fewer threads than connections": {
    cIcap: { ThreadsPerChild: "2", MaxSpareThreads: "2" },
    rows: [{ service: VIRUS_SCAN, asked: { ...never, maxConnections: 6, timeouts: { idle: 200 } }, says: ALL_FOUND, proof: "up" }],
  },
  "one request on a connection": {
    cIcap: { MaxKeepAliveRequests: "1" },
    rows: [
      { service: VIRUS_SCAN, asked: never, says: ALL_FOUND, proof: "up" },
      { service: VIRUS_SCAN, asked: required, says: ALL_FOUND },
    ],
  },
  "the wrong service": {
    rows: [
      { service: "echo", asked: never, says: { ...all("lets_pass", "clean"), ...TOO_LARGE }, proof: "broken" },
      { service: "nothing", asked: never, says: all("wrong_service", "wrong_service"), proof: "down" },
    ],
  },
};

describe.each(Object.entries(CONFIGURATIONS))("c-icap: %s", (_, { rows, ...configuration }) => {
  let cIcap: CIcap;
  let clamd: Clamd;
  beforeAll(async () => {
    const settings = typeof configuration.clamd === "object" ? configuration.clamd : {};
    clamd = await startClamd({ settings, started: configuration.clamd !== "absent" });
    cIcap = await startCIcap({ clamd, settings: configuration.cIcap ?? {} });
    if (configuration.clamd === "dies") await clamd.kill();
  });
  afterAll(async () => {
    await cIcap?.stop();
    await clamd?.stop();
  });

  const named = rows.map((row) => [`${row.asked.method ?? "RESPMOD"} ${row.service}, preview ${row.asked.preview}`, row] as const);

  it.each(named)("%s", async (__, row) => {
    const came = await askLibrary({ url: cIcap.url(row.service), ...row.asked }, row);
    expect(fitted(cellsOf(row), came)).toEqual(cellsOf(row));
  });

  it.each(named.filter(([, { proof }]) => proof !== undefined))("%s, with canaries", async (__, row) => {
    const { state, came } = await askScanner({ url: cIcap.url(row.service), ...row.asked }, row, row.canaries);
    expect(state).toBe(row.proof);
    expect(came).toEqual(behindCanaries(row, state));
  });
});
