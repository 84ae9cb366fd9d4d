/**
 * What each of several processes gets of limits that are those of all requests together. Parts differ by one at most, and add up to the whole, but for
 * `max_per_client`, of which each gets twice its part. What is not in the file has limits of its own for each process.
 */
import { MIB } from "./fields.ts";
import type { Config } from "./schema.ts";

interface Issue {
  readonly path: (string | number)[];
  readonly message: string;
}

/** The file so far: keys may hold anything. */
interface Unchecked {
  readonly web?: { readonly workers?: unknown };
  readonly scan?: {
    readonly max_file_size?: unknown;
    readonly max_concurrent?: unknown;
    readonly max_queued?: unknown;
    readonly spool?: { readonly memory?: unknown; readonly disk?: unknown };
  };
  readonly icap?: unknown;
}

/** More serve no machine better. */
export const MOST_WORKERS = 128;
/** Bytes; less would not do for one process either. */
export const LEAST_SPOOL_MEMORY = 2 * MIB;

/** Where limits are too small for every worker to get what it needs. */
export function shareIssues({ web, scan, icap }: Unchecked): Issue[] {
  const workers = web?.workers;
  // Of a number that can't be, that alone is told.
  if (typeof workers !== "number" || !Number.isInteger(workers) || workers < 2 || workers > MOST_WORKERS) return [];
  const found: Issue[] = [];
  const check = (path: Issue["path"], whole: unknown, needed: number, words: string): void => {
    if (typeof whole !== "number" || whole >= needed) return;
    found.push({ path, message: `must be at least ${words}: the ${workers} processes of web.workers share it` });
  };
  const orNothing = (path: Issue["path"], whole: unknown): void => {
    if (whole !== 0) check(path, whole, workers, `${workers}, or 0`);
  };
  check(["scan", "max_concurrent"], scan?.max_concurrent, workers, String(workers));
  orNothing(["scan", "max_queued"], scan?.max_queued);
  const memory = workers * LEAST_SPOOL_MEMORY;
  check(["scan", "spool", "memory"], scan?.spool?.memory, memory, `${memory / MIB}MiB`);
  const { max_file_size: largest } = scan ?? {};
  if (typeof largest === "number" && typeof scan?.spool?.disk === "number" && largest <= scan.spool.disk) {
    check(["scan", "spool", "disk"], scan.spool.disk, workers * largest, `${workers} times scan.max_file_size`);
  }
  const services: readonly ({ max_connections?: unknown; max_waiting?: unknown } | null)[] = Array.isArray(icap) ? icap : [];
  for (const [index, service] of services.entries()) {
    check(["icap", index, "max_connections"], service?.max_connections, workers, String(workers));
    orNothing(["icap", index, "max_waiting"], service?.max_waiting);
  }
  return found;
}

/** Connections to the homeserver, of all processes together: so many for media and questions, and so many again for uploads. */
const HOMESERVER_CONNECTIONS = 256;

/** What one process may have of each. */
export function homeserverConnections({ workers }: Config["web"]): number {
  return Math.floor(HOMESERVER_CONNECTIONS / workers);
}

/** @param number of the worker, from 1 to `web.workers` */
export function shareOf(config: Config, number: number): Config {
  const { workers } = config.web;
  if (workers === 1) return config;
  const part = (whole: number): number => Math.floor(whole / workers) + (number <= whole % workers ? 1 : 0);
  const { scan, icap, result_cache: cache } = config;
  return {
    ...config,
    scan: {
      ...scan,
      max_concurrent: part(scan.max_concurrent),
      max_queued: part(scan.max_queued),
      // Twice its even part: connections of one client are never spread that evenly, and who keeps within the limit is not to be refused.
      max_per_client: Math.min(scan.max_per_client, Math.ceil((2 * scan.max_per_client) / workers)),
      spool: { memory: part(scan.spool.memory), disk: part(scan.spool.disk) },
    },
    icap: icap.map((service) => ({
      ...service,
      max_connections: part(service.max_connections),
      max_waiting: part(service.max_waiting),
    })),
    result_cache: { ...cache, max_size: Math.max(1, part(cache.max_size)), media_memory: part(cache.media_memory) },
  };
}
