/**
 * How a Redis is reached: one server, the master that Sentinels name, or a Cluster. Whatever it is, nothing asked of it is waited for longer
 * than a small limit, nothing is asked twice, and nothing queues up while it is away.
 */
import { setImmediate as endOfTurn } from "node:timers/promises";
import { type Cluster, Redis, type RedisOptions } from "ioredis";
import { createCluster, probeCluster } from "./redis-cluster.ts";
import { failureWords } from "./redis-failure.ts";
import { within } from "./within.ts";

export interface RedisAddress {
  readonly host: string;
  readonly port: number;
}

/** PEM texts, and the name that a server's certificate must hold where that is not the address it is reached at. */
export interface RedisTls {
  /** In place of the authorities that Node knows. */
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly serverName?: string;
}

interface Access {
  /** An ACL user; without one, `default`. */
  readonly username?: string;
  readonly password?: string;
  /** Present, though empty, it means TLS. So does a URL with `rediss:`. */
  readonly tls?: RedisTls;
  /** Milliseconds that one operation may take; 250 by default. */
  readonly limit?: number;
}

interface OneServer {
  /** `redis://` or `rediss://`, host, port, and the number of a database as its path; without a query. */
  readonly url: string;
}

interface Watched {
  readonly sentinels: readonly RedisAddress[];
  /** The name under which the Sentinels watch it. */
  readonly master: string;
  readonly sentinelPassword?: string;
  /** With the same certificates. */
  readonly tlsToSentinels?: boolean;
  readonly database?: number;
}

interface Clustered {
  /** Some of its nodes; they name the others. */
  readonly cluster: readonly RedisAddress[];
}

export type RedisConnectionOptions = Access & (OneServer | Watched | Clustered);

/** What commands are given to; each with one key, for a Cluster's sake. */
export type RedisCommands = Redis | Cluster;

export interface RedisConnection {
  readonly client: RedisCommands;
  /** For operators. */
  readonly address: string;
  /** Milliseconds that one operation may take; past that nobody waits for it any more. */
  readonly limit: number;
  /**
   * What is asked from now on, until the event loop has seen to all that had come in, goes out in one piece: each command by itself would have to be
   * written, and would wake Redis. Commands to a Cluster go out as they come.
   * @returns resolves when it has gone out, which may be late where other work takes long; undefined where it goes out at once
   */
  readonly gather: () => Promise<void> | undefined;
  /** @throws unless it answers, all of it; takes no longer than a few operations */
  probe(): Promise<void>;
  /** One that only listens. When it is lost it ends, and another one can be opened. */
  openListener(): Redis;
  /** What went wrong, for operators: bounded, without passwords and commands' arguments. */
  words(error: unknown): string;
}

/** Milliseconds that one operation may take. */
const OPERATION_LIMIT = 250;
/** Milliseconds of silence, with an answer due, after which a connection is given up. */
const SILENCE_LIMIT = 1000;
/** Milliseconds between two connections that are given up because they lead to a server that takes no writes. */
const READ_ONLY_INTERVAL = 10_000;

/** Without what would change the shape of replies. */
type Settings = Omit<RedisOptions, "replyMapping">;

const LIMITS = {
  socketTimeout: SILENCE_LIMIT,
  connectTimeout: 2000,
  disconnectTimeout: 500,
  maxRetriesPerRequest: 0,
  autoResendUnfulfilledCommands: false,
  // ioredis lets go of the promise; were it rejected, that would end the process. Who listens does it himself.
  autoResubscribe: false,
  disableClientInfo: true,
} as const satisfies RedisOptions;

/** What can't be asked now is not asked later. */
const NO_QUEUE = { enableOfflineQueue: false } as const;

const LISTENING = { commandTimeout: SILENCE_LIMIT, retryStrategy: () => null, sentinelRetryStrategy: () => null } as const;

/** Connects in the background. @throws TypeError when the URL is none of Redis; it is not quoted: it may hold a password */
export function openConnection(options: RedisConnectionOptions): RedisConnection {
  const { limit = OPERATION_LIMIT } = options;
  return "cluster" in options ? openCluster(options, limit) : openServer("url" in options ? oneServer(options) : watched(options), limit);
}

interface ServerSettings {
  readonly settings: Settings;
  readonly address: string;
  readonly secrets: readonly (string | undefined)[];
}

function openServer({ settings, address, secrets }: ServerSettings, limit: number): RedisConnection {
  const client = new Redis({
    ...settings,
    ...LIMITS,
    ...NO_QUEUE,
    retryStrategy: retryDelay,
    sentinelRetryStrategy: retryDelay,
    reconnectOnError: leavingReadOnly(),
  });
  return {
    client,
    address,
    limit,
    gather: gathering(client),
    probe: async () => void (await within(limit, client.ping())),
    openListener: () => new Redis({ ...settings, ...LIMITS, ...NO_QUEUE, ...LISTENING }),
    words: (error) => failureWords(error, secrets),
  };
}

function gathering(client: Redis): () => Promise<void> {
  let sent: Promise<void> | undefined;
  const send = async (): Promise<void> => {
    const { stream } = client;
    stream.cork();
    await endOfTurn();
    sent = undefined;
    stream.uncork();
  };
  return () => (sent ??= send());
}

function openCluster(options: Access & Clustered, limit: number): RedisConnection {
  const node = { ...access(options), ...LIMITS };
  const cluster = createCluster(options.cluster, node, retryDelay);
  return {
    client: cluster,
    address: addresses(options.cluster),
    limit,
    gather: () => undefined,
    probe: () => probeCluster(cluster),
    // Nodes pass on to each other what is published; any of them will do, and after a failure another one is as good.
    openListener() {
      const masters = cluster.nodes("master").map(({ options: { host = "", port = 0 } }) => ({ host, port }));
      const known = masters.length > 0 ? masters : options.cluster;
      return new Redis({ ...node, ...NO_QUEUE, ...LISTENING, ...known[Math.floor(Math.random() * known.length)] });
    },
    words: (error) => failureWords(error, [options.password]),
  };
}

function oneServer(options: Access & OneServer): ServerSettings {
  const url = URL.canParse(options.url) ? new URL(options.url) : undefined;
  const database = /^\/?(\d{0,9})$/.exec(url?.pathname ?? "none")?.[1];
  if (url === undefined || database === undefined || !/^rediss?:$/.test(url.protocol) || url.hostname === "" || url.search !== "") {
    throw new TypeError("a URL of Redis has redis:// or rediss://, a host, maybe a port and the number of a database, and no query");
  }
  const port = Number(url.port === "" ? 6379 : url.port);
  const username = options.username ?? decodeURIComponent(url.username);
  const password = options.password ?? decodeURIComponent(url.password);
  const tls = options.tls ?? (url.protocol === "rediss:" ? {} : undefined);
  return {
    settings: {
      host: url.hostname.replace(/^\[(.*)\]$/, "$1"),
      port,
      db: Number(database),
      ...access({ username, password, ...(tls === undefined ? {} : { tls }) }),
    },
    address: `${url.hostname}:${port}`,
    secrets: [password],
  };
}

function watched(options: Access & Watched): ServerSettings {
  return {
    settings: {
      sentinels: options.sentinels.map(({ host, port }) => ({ host, port })),
      name: options.master,
      db: options.database ?? 0,
      sentinelCommandTimeout: SILENCE_LIMIT,
      ...access(options),
      enableTLSForSentinelMode: options.tls !== undefined,
      ...(options.sentinelPassword === undefined ? {} : { sentinelPassword: options.sentinelPassword }),
      ...(options.tlsToSentinels === true ? { sentinelTLS: tlsOptions(options.tls ?? {}) } : {}),
    },
    address: `${options.master} (Sentinels: ${addresses(options.sentinels)})`,
    secrets: [options.password, options.sentinelPassword],
  };
}

function access({ username, password, tls }: Access): Settings {
  return {
    ...(username === undefined || username === "" ? {} : { username }),
    ...(password === undefined || password === "" ? {} : { password }),
    ...(tls === undefined ? {} : { tls: tlsOptions(tls) }),
  };
}

function tlsOptions({ serverName, ...certificates }: RedisTls): NonNullable<RedisOptions["tls"]> {
  return { ...certificates, ...(serverName === undefined ? {} : { servername: serverName }) };
}

/** Milliseconds until the next try to connect. */
function retryDelay(attempt: number): number {
  return Math.min(attempt * 200, 2000);
}

/** A master may have become a replica: then another connection leads to the new one. Where it is read-only for good, reading goes on. */
function leavingReadOnly(): (error: Error) => boolean {
  let last = -Infinity;
  return ({ message }) => {
    if (!message.startsWith("READONLY ") || performance.now() - last < READ_ONLY_INTERVAL) return false;
    last = performance.now();
    return true;
  };
}

function addresses(list: readonly RedisAddress[]): string {
  return list.map(({ host, port }) => `${host}:${port}`).join(", ");
}
