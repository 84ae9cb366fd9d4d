/** What it costs to share verdicts: the same repeated requests with verdicts in memory and in Redis, at one gateway and at two. */
import type { Group, LoadRow } from "../row.ts";
import { KIB } from "./sizes.ts";

const KNOWN = 2000;

function repeatedRow(endpoint: "download" | "scan" | "scan_encrypted", store: "memory" | "redis", instances: 1 | 2): LoadRow {
  return {
    name: `sharing-${endpoint.replace("_", "-")}-${store}-${instances}`,
    title: `${endpoint}, ${store === "redis" ? "Redis" : "memory"}, ${instances === 1 ? "1 gateway" : "2 gateways"}`,
    gateway: { instances, redis: store === "redis" },
    endpoint,
    size: 10 * KIB,
    media: 16,
    connections: 32,
    ceilings: ["homeserver"],
    ...(store === "redis" ? { probes: ["redis"] } : {}),
  };
}

/** Each media once, at a gateway that has never heard of it, after another one had it scanned. */
function secondRow(endpoint: "download" | "scan" | "scan_encrypted"): LoadRow {
  return {
    name: `sharing-${endpoint.replace("_", "-")}-second`,
    title: `${endpoint}, Redis, first time at the second gateway`,
    gateway: { instances: 2, redis: true },
    endpoint,
    size: 10 * KIB,
    media: KNOWN,
    known: true,
    lastInstance: true,
    requests: KNOWN,
    connections: 32,
    ceilings: [],
    probes: ["redis"],
  };
}

export const sharing: Group = {
  name: "sharing",
  title: "Repeated 10 KiB, verdicts in memory and in Redis",
  rows: (["download", "scan", "scan_encrypted"] as const).flatMap((endpoint) => [
    repeatedRow(endpoint, "memory", 1),
    repeatedRow(endpoint, "redis", 1),
    repeatedRow(endpoint, "memory", 2),
    repeatedRow(endpoint, "redis", 2),
    secondRow(endpoint),
  ]),
};
