/** A Redis Cluster: used only while it is whole, so that none of its nodes is waited for again and again. */
import { Cluster, type Redis, type RedisOptions } from "ioredis";
import { failureWords } from "./redis-failure.ts";

/** `MOVED 3999 192.0.2.1:6381`; ioredis takes whatever stands there, and falls over what is missing. */
const REDIRECTION = /^(?:MOVED|ASK) \d{1,5} \S+:\d{1,5}$/;

class SoundCluster extends Cluster {
  override handleError(error: Error, ttl: object, handlers: { readonly defaults: () => void }): void {
    if (/^(?:MOVED|ASK)\b/.test(error.message) && !REDIRECTION.test(error.message)) handlers.defaults();
    else super.handleError(error, ttl, handlers);
  }
}

/**
 * Connects in the background; keys of one command belong to one slot.
 * @param node what holds for the connection to each node
 */
export function createCluster(
  startNodes: readonly { readonly host: string; readonly port: number }[],
  node: Omit<RedisOptions, "replyMapping">,
  retryDelay: (attempt: number) => number,
): Cluster {
  const cluster = new SoundCluster(
    startNodes.map(({ host, port }) => ({ host, port })),
    {
      redisOptions: node,
      enableOfflineQueue: false,
      // Asks one node alone, and says nothing of why it failed: see `probeCluster`.
      enableReadyCheck: false,
      clusterRetryStrategy: retryDelay,
      // A command is sent on at once to where its key has gone, and never later.
      maxRedirections: 4,
      retryDelayOnFailover: 0,
      retryDelayOnClusterDown: 0,
      retryDelayOnTryAgain: 0,
      slotsRefreshTimeout: 1000,
      // Certificates name hosts, so names stay names.
      dnsLookup: (name, done) => done(null, name),
    },
  );
  cluster.on("+node", (redis: Redis) => {
    const asking = redis.asking.bind(redis);
    // ioredis sends it ahead of a command and lets go of its promise; were it rejected, that would end the process.
    redis.asking = (...args) => {
      const answer = asking(...args);
      answer.catch(() => undefined);
      return answer;
    };
  });
  return cluster;
}

/** Finds out anew which nodes there are. @throws unless every master answers, and says that all slots are served */
export async function probeCluster(cluster: Cluster): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    cluster.refreshSlotsCache((error) => (error ? reject(error) : resolve()));
  });
  const masters = cluster.nodes("master");
  if (masters.length === 0) throw new Error("no master is known");
  await Promise.all(
    masters.map(async (master) => {
      const address = `${master.options.host}:${master.options.port}`;
      const info = await master.cluster("INFO").catch((error: unknown) => {
        throw new Error(`${address}: ${failureWords(error)}`);
      });
      if (!/^cluster_state:ok\r?$/m.test(info)) throw new Error(`${address} says that the cluster is down`);
    }),
  );
}
