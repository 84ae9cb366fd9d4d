/** What a memory of the homeserver's yes and of clean media is worth, and what several processes are. */
import type { GatewaySetup, Group, LoadRow } from "../row.ts";
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

/** Of what each row is, by the beginning of its name. */
const LOADS: Readonly<Record<string, Pick<LoadRow, "endpoint" | "size" | "media" | "title">>> = {
  cold: { title: "download 10 KiB, cold", endpoint: "download", size: 10 * KIB },
  repeated: { title: "download 10 KiB, repeated", endpoint: "download", size: 10 * KIB, media: 16 },
  scan: { title: "scan_encrypted, repeated", endpoint: "scan_encrypted", size: 10 * KIB, media: 16 },
};

function workersRows(workers: number, redis: boolean): LoadRow[] {
  const gateway: GatewaySetup = { settings: { web: { workers } }, redis };
  const where = redis ? "-redis" : "";
  return Object.entries(LOADS).map(([name, load]) => ({
    ...load,
    name: `workers-${name}-${workers}${where}`,
    title: `${load.title}, ${workers} ${workers === 1 ? "worker" : "workers"}${redis ? ", Redis" : ""}`,
    gateway,
    connections: 32,
    ceilings: ["homeserver"],
    ...(redis ? { probes: ["redis"] } : {}),
  }));
}

export const workers: Group = {
  name: "workers",
  title: "Several processes",
  rows: [...workersRows(1, false), ...workersRows(2, false), ...workersRows(2, true)],
};
