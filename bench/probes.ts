/** What can be asked of the peers about a load, beside what the generator and /proc tell. */
import { setTimeout as sleep } from "node:timers/promises";
import type { HomeserverCounts } from "./homeserver.ts";
import { type CommandCounts, commandsBetween } from "./redis-stats.ts";
import type { Facts } from "./row.ts";
import type { HomeserverPeer, RedisPeer, ScannerPeer } from "./stage.ts";

export interface Probe {
  /** When what is measured begins. */
  begin(): Promise<void>;
  /** When it has ended, after so many requests. */
  end(requests: number): Promise<Facts>;
}

/** How often Redis is asked for each request. */
export function redisProbe(redis: RedisPeer): Probe {
  let before: CommandCounts = new Map();
  return {
    begin: async () => void (before = await redis.commands()),
    end: async (requests) => ({ "Redis commands a request": commandsBetween(before, await redis.commands()) / requests }),
  };
}

/** How often the homeserver is asked, and connected to, for each request. */
export function homeserverProbe(homeserver: HomeserverPeer): Probe {
  let before: HomeserverCounts = { requests: 0, connections: 0 };
  return {
    begin: async () => void (before = await homeserver.counts()),
    end: async (requests) => {
      const after = await homeserver.counts();
      return {
        "homeserver asked, a request": (after.requests - before.requests) / requests,
        "connected to": (after.connections - before.connections) / requests,
      };
    },
  };
}

/** Milliseconds between two looks. */
const INTERVAL = 20;

/** How many scans there were, and how many downloads had begun before the first of them was over. @throws TypeError for a scanner that doesn't count */
export function scansProbe(homeserver: HomeserverPeer, { counts }: ScannerPeer): Probe {
  if (counts === undefined) throw new TypeError("this scanner does not count");
  const before = { requests: 0, bodies: 0 };
  const over = new AbortController();
  let early = 0;
  const look = async (): Promise<void> => {
    while (!over.signal.aborted) {
      const { requests } = await homeserver.counts();
      // Asked afterwards: if there is no verdict even now, there was none then.
      if ((await counts()).bodies > before.bodies) return;
      early = requests - before.requests;
      await sleep(INTERVAL, undefined, { signal: over.signal }).catch(() => undefined);
    }
  };
  let looking = Promise.resolve();
  return {
    begin: async () => {
      before.requests = (await homeserver.counts()).requests;
      before.bodies = (await counts()).bodies;
      looking = look();
    },
    end: async () => {
      over.abort();
      await looking;
      return { scans: (await counts()).bodies - before.bodies, "downloads before the verdict": early };
    },
  };
}
