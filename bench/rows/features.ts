/** What a memory of the homeserver's yes and of clean media is worth, and what several processes are. */
import type { Settings } from "../gateway.ts";
import type { Group, LoadRow } from "../row.ts";
import { KIB, MIB } from "./sizes.ts";

const REMEMBERING = { settings: { download: { authorization_ttl: "30s" }, result_cache: { media_memory: "64MiB" } } };
const REPEATED = { gateway: REMEMBERING, media: 16, connections: 32, ceilings: ["homeserver"] } as const;

export const remembering: Group = {
  name: "remembering",
  title: "Repeated, the homeserver being asked each 30 s for each token and media",
  rows: [
    { name: "remembering-10k", title: "download 10 KiB", endpoint: "download", size: 10 * KIB, ...REPEATED },
    { name: "remembering-1m", title: "download 1 MiB", endpoint: "download", size: MIB, ...REPEATED },
    { name: "remembering-encrypted-10k", title: "download_encrypted 10 KiB", endpoint: "download_encrypted", size: 10 * KIB, ...REPEATED },
    { name: "remembering-encrypted-1m", title: "download_encrypted 1 MiB", endpoint: "download_encrypted", size: MIB, ...REPEATED },
    { name: "remembering-thumbnail-10k", title: "thumbnail 10 KiB", endpoint: "thumbnail", size: 10 * KIB, ...REPEATED },
    { name: "remembering-scan", title: "scan", endpoint: "scan", size: 10 * KIB, ...REPEATED },
  ],
};

interface Load extends Pick<LoadRow, "endpoint" | "size" | "media" | "title"> {
  readonly settings?: Settings;
}

/** Of what each row is, by the beginning of its name. */
const LOADS: Readonly<Record<string, Load>> = {
  cold: { title: "download 10 KiB, cold", endpoint: "download", size: 10 * KIB },
  repeated: { title: "download 10 KiB, repeated", endpoint: "download", size: 10 * KIB, media: 16 },
  scan: { title: "scan_encrypted, repeated", endpoint: "scan_encrypted", size: 10 * KIB, media: 16 },
};
const LARGER_LOADS: Readonly<Record<string, Load>> = {
  "cold-1m": { title: "download 1 MiB, cold", endpoint: "download", size: MIB },
  "cold-encrypted-1m": { title: "download_encrypted 1 MiB, cold", endpoint: "download_encrypted", size: MIB },
  "repeated-1m": { title: "download 1 MiB, repeated", endpoint: "download", size: MIB, media: 16 },
  "remembering-10k": {
    title: "download 10 KiB, repeated, authorization_ttl",
    endpoint: "download",
    size: 10 * KIB,
    media: 16,
    settings: REMEMBERING.settings,
  },
  "remembering-1m": {
    title: "download 1 MiB, repeated, authorization_ttl",
    endpoint: "download",
    size: MIB,
    media: 16,
    settings: REMEMBERING.settings,
  },
};

function workersRows(loads: Readonly<Record<string, Load>>, workers: number, redis: boolean): LoadRow[] {
  const where = redis ? "-redis" : "";
  return Object.entries(loads).map(([name, { settings = {}, ...load }]) => ({
    ...load,
    name: `workers-${name}-${workers}${where}`,
    title: `${load.title}, ${workers} ${workers === 1 ? "worker" : "workers"}${redis ? ", Redis" : ""}`,
    gateway: { settings: { ...settings, web: { workers } }, redis },
    connections: 32,
    ceilings: ["homeserver"],
    ...(redis ? { probes: ["redis"] } : {}),
  }));
}

export const workers: Group = {
  name: "workers",
  title: "Several processes",
  rows: [...workersRows(LOADS, 1, false), ...workersRows({ ...LOADS, ...LARGER_LOADS }, 2, false), ...workersRows(LOADS, 2, true)],
};
