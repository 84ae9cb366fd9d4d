/** Whether the cost of a byte, a connection or a verdict stays what it is when there are more of them. */
import type { Group, LoadRow } from "../row.ts";
import { verdictsRow } from "./growth-verdicts.ts";
import { KIB, MIB } from "./sizes.ts";

const GIB = 1024 * MIB;
const LARGE_FILES = { settings: { scan: { max_file_size: "2GiB", wait: "10m", timeout: "10m" } } };

/** A GiB in all, of media of this size, one after another. */
function sizeRow(endpoint: "download" | "download_encrypted", mib: number): LoadRow {
  return {
    name: `growth-size-${endpoint === "download" ? "" : "encrypted-"}${mib}m`,
    title: `${endpoint}, cold, ${mib} MiB`,
    gateway: LARGE_FILES,
    endpoint,
    size: mib * MIB,
    connections: 1,
    requests: Math.floor(GIB / (mib * MIB)),
    ceilings: ["homeserver"],
  };
}

function connectionsRow(kind: "cold" | "repeated", connections: number): LoadRow {
  return {
    name: `growth-connections-${kind}-${connections}`,
    title: `download 10 KiB, ${kind}`,
    // More wait for their turn than there is room for by default.
    gateway: { settings: { scan: { max_queued: 2000 } } },
    endpoint: "download",
    size: 10 * KIB,
    ...(kind === "cold" ? {} : { media: 16 }),
    connections,
    ceilings: ["homeserver"],
  };
}

/** All of them are remembered in the process: its peak memory tells what that takes. */
function knownRow(media: number): LoadRow {
  return {
    name: `growth-known-${media}`,
    title: `scan of ${media} media, cold, verdicts in memory`,
    runs: 1,
    gateway: {},
    endpoint: "scan",
    size: KIB,
    connections: 32,
    requests: media,
    ceilings: [],
  };
}

export const growth: Group = {
  name: "growth",
  title: "As work grows",
  onlyIfAsked: true,
  rows: [
    ...[1, 10, 100, 1024].map((mib) => sizeRow("download", mib)),
    ...[1, 10, 100, 1024].map((mib) => sizeRow("download_encrypted", mib)),
    ...[1, 10, 100, 1000].map((connections) => connectionsRow("cold", connections)),
    ...[1, 10, 100, 1000].map((connections) => connectionsRow("repeated", connections)),
    ...[10, 1000, 10_000, 100_000].map(knownRow),
    ...[10, 1000, 100_000, 1_000_000].map(verdictsRow),
  ],
};
