/** What services are asked under each configuration, and what may come of it. */
import { randomBytes } from "node:crypto";
import { crc32 } from "node:zlib";
import { expect } from "vitest";
import { type HeaderFields, IcapError, IcapService, type IcapServiceOptions } from "../../icap/index.ts";
import { GatewayError } from "../../src/errors.ts";
import { buildCanary, type CanaryKind, EICAR, storedEicar } from "../../src/scan/canary-samples.ts";
import { IcapScanner, type ReplicaStatus } from "../../src/scan/icap-scanner.ts";
import { zip } from "../../src/scan/zip.ts";

const MB = 1_000_000;

/** All hold EICAR, some at their very end. */
export const INFECTED = {
  plain: Buffer.from(EICAR),
  zip: buildCanary("zip").bytes,
  pdf: buildCanary("pdf").bytes,
  png: buildCanary("png").bytes,
  encrypted: buildCanary("encrypted").bytes,
  last3MB: infectedArchive(3 * MB),
  last8MB: infectedArchive(8 * MB),
} as const;

export const HARMLESS = {
  empty: Buffer.alloc(0),
  random1KB: randomBytes(1000),
  random3MB: randomBytes(3 * MB),
  random8MB: randomBytes(8 * MB),
} as const;

/** What may become of a sample in one cell of the table: verdicts' outcomes, or the code of the error in place of one. */
const CELLS = {
  infected: ["infected"],
  unscannable: ["unscannable"],
  /** Something else came back, or an answer that came too soon to be believed. */
  blocked: ["modified", "error"],
  error: ["error"],
  /** Something else came back, without a word on why. */
  modified: ["modified"],
  clean: ["clean"],
  /** Clean, unless the answer came before all was sent; a large file may or may not be in the sockets by then. */
  "clean or error": ["clean", "error"],
  /** The server acquits what is infected, in an answer like that to a harmless file: nothing but canaries tells. */
  lets_pass: ["clean"],
  /** The same, unless the answer came too soon. */
  "lets_pass or error": ["clean", "error"],
  wrong_service: ["wrong_service"],
  timeout: ["timeout"],
} as const satisfies Record<string, readonly string[]>;

/** Of an infected sample: that it is clean can't be written down but as the server's own lie. */
export type InfectedCell = Exclude<keyof typeof CELLS, "clean" | "clean or error">;
export type HarmlessCell = Exclude<keyof typeof CELLS, "infected" | "unscannable" | "lets_pass" | "lets_pass or error">;

export type Samples = Readonly<Record<keyof typeof INFECTED, InfectedCell> & Record<keyof typeof HARMLESS, HarmlessCell>>;

/** A service's own limit on size, and samples of one byte less, of just so many, and of one byte more. */
export interface Limit {
  readonly bytes: number;
  readonly infected: readonly [InfectedCell, InfectedCell, InfectedCell];
  readonly harmless: readonly [HarmlessCell, HarmlessCell, HarmlessCell];
}

export const ALL_FOUND: Samples = {
  plain: "infected",
  zip: "infected",
  pdf: "infected",
  png: "infected",
  encrypted: "unscannable",
  last3MB: "infected",
  last8MB: "infected",
  empty: "clean",
  random1KB: "clean",
  random3MB: "clean",
  random8MB: "clean",
};

/** Every sample in the same cell. */
export function all(infected: InfectedCell, harmless: HarmlessCell): Samples {
  const cells = [...Object.keys(INFECTED).map((name) => [name, infected]), ...Object.keys(HARMLESS).map((name) => [name, harmless])];
  return Object.fromEntries(cells) as Samples;
}

type Cells = Readonly<Record<string, keyof typeof CELLS>>;

interface Row {
  readonly says: Samples;
  readonly limit?: Limit | undefined;
}

/** All cells of a row by the name of the sample, those around the limit among them. */
export function cellsOf({ says, limit }: Row): Cells {
  if (limit === undefined) return says;
  const around = (["infected", "harmless"] as const).flatMap((kind) => limit[kind].map((cell, at) => [`${kind} ${OFFSETS[at]}`, cell]));
  return { ...says, ...Object.fromEntries(around) };
}

const OFFSETS = ["below limit", "at limit", "above limit"] as const;

/** The same, with what really came in place of each cell that doesn't allow it: equal to `cells` if all is as it should be. */
export function fitted(cells: Cells, came: Readonly<Record<string, string>>): Readonly<Record<string, string | undefined>> {
  const entries = Object.entries(cells).map(([name, cell]) => {
    const outcome = came[name] ?? "not asked";
    return [name, (CELLS[cell] as readonly string[]).includes(outcome) ? cell : outcome];
  });
  return Object.fromEntries(entries) as Record<string, string>;
}

/** Has the library scan every sample of a row, several at once. */
export async function askLibrary(
  options: IcapServiceOptions,
  row: Row,
  fields: HeaderFields = [],
  described = { contentType: "application/octet-stream", fileName: "media" },
): Promise<Record<string, string>> {
  await using service = new IcapService({ maxConnections: 2, ...options });
  return await outcomes({ ...HARMLESS, ...samplesWithEicar(row) }, row.limit, async (bytes) => {
    const request = { body: () => pieces(bytes), size: bytes.length, ...described };
    return (await service.scan({ ...request, fields, signal: AbortSignal.timeout(50_000) })).verdict.outcome;
  });
}

export interface ScannerRow {
  readonly state: ReplicaStatus["state"];
  /** By sample: the outcome of its verdict, or the code of the error in place of one. */
  readonly came: Readonly<Record<string, string>>;
}

/** Has the gateway's scanner scan every infected sample, and a harmless one. Canaries are those of the gateway's default, and `more`. */
export async function askScanner(options: IcapServiceOptions, row: Row, more: readonly CanaryKind[] = []): Promise<ScannerRow> {
  await using scanner = new IcapScanner({
    name: "antivirus",
    services: [{ maxConnections: 2, ...options }],
    canaries: ["plain", "zip", "pdf", ...more],
    canaryInterval: 3_600_000,
    canaryTimeout: 30_000,
    maxFileSize: 10 * MB,
    proveSize: true,
    suspend: { failures: 1000, within: 1000, pause: 1000, maxPause: 1000 },
    log: {
      proven: () => undefined,
      unproven: () => undefined,
      missed: () => undefined,
      sizeProven: () => undefined,
      doubtsLearned: () => undefined,
    },
  });
  await scanner.start();
  const [status] = scanner.replicas();
  const samples = { random1KB: HARMLESS.random1KB, ...samplesWithEicar(row) };
  const came = await outcomes(samples, undefined, async (bytes) => {
    const subject = { size: bytes.length, type: undefined, open: () => pieces(bytes) };
    return (await scanner.scan(subject, AbortSignal.timeout(50_000))).outcome;
  });
  return { state: status?.state ?? "down", came };
}

/**
 * What the scanner may say of the same samples: of one that is proven, small harmless files are clean and what the server finds is found; of
 * another there is no verdict at all. Nothing infected is ever clean.
 */
export function behindCanaries(row: Row, state: ReplicaStatus["state"]): Readonly<Record<string, unknown>> {
  const expected = (cell: string): unknown => {
    if (state !== "up") return "scanner_unavailable";
    return cell === "infected" || cell === "unscannable" ? cell : expect.not.stringMatching(/^clean$/);
  };
  const samples = Object.keys(INFECTED).map((name) => [name, expected(row.says[name as keyof typeof INFECTED])]);
  // Just below a limit is more than what is proven, which is found out to a tenth.
  const limit = row.limit === undefined ? [] : OFFSETS.map((offset) => [`infected ${offset}`, expected("blocked")]);
  return { ...Object.fromEntries([...samples, ...limit]), random1KB: state === "up" ? "clean" : "scanner_unavailable" };
}

async function outcomes(
  samples: Readonly<Record<string, Buffer>>,
  limit: Limit | undefined,
  ask: (bytes: Buffer) => Promise<string>,
): Promise<Record<string, string>> {
  const harmless = limit === undefined ? [] : around("harmless", limit.bytes, randomBytes);
  const answered = [...Object.entries(samples), ...harmless].map(async ([name, bytes]) => {
    try {
      return [name, await ask(bytes)] as const;
    } catch (error) {
      if (error instanceof IcapError || error instanceof GatewayError) return [name, error.code] as const;
      throw error;
    }
  });
  return Object.fromEntries(await Promise.all(answered));
}

function samplesWithEicar({ limit }: Row): Record<string, Buffer> {
  return { ...INFECTED, ...Object.fromEntries(limit === undefined ? [] : around("infected", limit.bytes, infectedArchive)) };
}

function around(kind: string, limit: number, make: (size: number) => Buffer): [string, Buffer][] {
  return OFFSETS.map((offset, at) => [`${kind} ${offset}`, make(limit - 1 + at)]);
}

/** A zip of that many bytes: noise, and EICAR as its last entry. */
function infectedArchive(size: number): Buffer {
  return eicarBehind(randomBytes(size - eicarBehind(Buffer.alloc(0)).length));
}

function eicarBehind(data: Buffer): Buffer {
  const noise = { name: "noise.bin", method: 0, encrypted: false, data, packed: data.length, crc: crc32(data), size: data.length } as const;
  return zip([noise, storedEicar(randomBytes)], "");
}

/** As media arrives: 64 KiB at a time. */
async function* pieces(bytes: Buffer): AsyncGenerator<Buffer> {
  const size = 64 * 1024;
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}
