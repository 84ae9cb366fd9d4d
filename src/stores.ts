/** Where a gateway keeps what outlasts a request: verdicts, what operators decide by hand, what instances tell each other. */
import { hkdfSync } from "node:crypto";
import type { Config } from "./config/load.ts";
import { type RequestKeys, type RequestSecrets, loadRequestKeys } from "./crypto/keys.ts";
import type { Logger } from "./observability/log.ts";
import type { Metrics } from "./observability/metrics.ts";
import { VerdictKeys } from "./verdicts/keys.ts";
import { DEFAULT_MAX_BYTES, MemoryVerdictStore } from "./verdicts/memory.ts";
import { BlockList } from "./verdicts/overrides-block-list.ts";
import { FileOverrides, overridesIn } from "./verdicts/overrides-file.ts";
import { SharedOverrides } from "./verdicts/overrides-shared.ts";
import { type OverrideSource, Overrides } from "./verdicts/overrides.ts";
import type { Records } from "./verdicts/records.ts";
import type { RedisConnectionOptions } from "./verdicts/redis-connection.ts";
import type { RedisRecords } from "./verdicts/redis-records.ts";
import { SharedVerdictStore } from "./verdicts/shared-verdicts.ts";
import { DoubtRecords } from "./verdicts/shared-doubts.ts";
import { SharedProvenSizes } from "./verdicts/shared-proofs.ts";
import { LocalSharing, LeaseSharing, type Sharing } from "./verdicts/sharing.ts";
import type { VerdictStore } from "./verdicts/store.ts";

export interface Stores extends AsyncDisposable {
  readonly keys: VerdictKeys;
  readonly verdicts: VerdictStore;
  readonly overrides: Overrides;
  readonly sharing: Sharing;
  /** Whether Redis can be used, and other instances are heard; undefined where there is none. */
  readonly redis: (() => RedisRecords["status"]) | undefined;
  /** Undefined where there is no other process. */
  readonly shared: SharedKnowledge | undefined;
}

/** What processes tell each other of their scanners. */
export interface SharedKnowledge {
  readonly proofs: SharedProvenSizes;
  readonly doubts: DoubtRecords;
  /** Names those for whom this machine's loopback addresses are the same services, if there are any others. */
  readonly machine: string | undefined;
}

/** One of several processes that serve one port. */
export interface WorkerPlace {
  /** From 1. A process that takes another's place has its number. */
  readonly number: number;
  /** Others serve already. */
  readonly replaces: boolean;
  /** Names all of them together. */
  readonly group: string;
  /** What all of them call themselves to the homeserver. */
  readonly pseudonym: string;
  /** Of all of them: where there is no Redis. */
  readonly records: Records;
  /** Theirs, too. */
  readonly secrets: RequestSecrets;
}

/** Milliseconds that other instances may rely on a proven size; the instance that found it proves it again before that. */
const PROOF_LIFETIME = 24 * 60 * 60 * 1000;

/** Milliseconds that a start waits for overrides: while Redis is silent, and in all. */
const FIRST_READ = { patience: 2000, limit: 60_000 };

/** @throws KeyFileError */
export function openRequestKeys({ crypto }: Config): Promise<RequestKeys> {
  const source =
    crypto.request_secret_path === undefined
      ? { picklePath: crypto.pickle_path, pickleKey: crypto.pickle_key }
      : { secretPath: crypto.request_secret_path };
  return loadRequestKeys(source, crypto.previous_request_secret_paths);
}

/** Secrets for one purpose each, from the one that instances share. */
export type DeriveSecret = (purpose: string) => Buffer;

/** From `result_cache.digest_secret_path` if that is set, else from the request secret. */
export function secretsOf({ result_cache: { digest_secret: secret } }: Config, keys: RequestKeys): DeriveSecret {
  if (secret === undefined) return (purpose) => keys.deriveSecret(purpose);
  return (purpose) => Buffer.from(hkdfSync("sha256", secret, "", `matrix-icap-gateway ${purpose}`, 32));
}

export async function openRecords(
  config: Config,
  derive: DeriveSecret,
  log: Logger,
  more: { publicKey: string; onDropped: () => void },
): Promise<RedisRecords | undefined> {
  const { redis } = config.result_cache;
  if (redis === undefined) return undefined;
  // Its client is among the largest parts: who has no Redis does without.
  const { RedisRecords } = await import("./verdicts/redis-records.ts");
  return new RedisRecords({
    connection: connectionTo(redis),
    keyPrefix: redis.key_prefix,
    secret: derive("verdict records"),
    log,
    ...more,
  });
}

/**
 * Redis is connected to in the background.
 * @throws OverrideError for a list of blocked hashes, or a file of overrides, that can't be used.
 */
export async function openStores(
  config: Config,
  requestKeys: RequestKeys,
  log: Logger,
  metrics: Metrics,
  worker?: WorkerPlace,
): Promise<Stores> {
  const { result_cache: cache } = config;
  await using opened = new AsyncDisposableStack();
  const derive = secretsOf(config, requestKeys);
  const keys = new VerdictKeys(derive("verdict keys"));
  const onDropped = (): void => metrics.dropped();
  const redis = await openRecords(config, derive, log, { publicKey: requestKeys.publicKey, onDropped });
  if (redis !== undefined) opened.use(redis);
  const records: Records | undefined = redis ?? worker?.records;
  const ttl = ttlsOf(config);
  const options = { maxEntries: cache.max_size, maxBytes: DEFAULT_MAX_BYTES / config.web.workers, ttl };
  const verdicts = opened.use(records === undefined ? new MemoryVerdictStore(options) : new SharedVerdictStore({ ...options, records }));
  const overrides = opened.use(await openOverrides(config, derive, keys, redis, log));
  const sharing = records && opened.use(new LeaseSharing({ records, patience: 2 * config.scan.timeout }));
  const shared = records && {
    proofs: new SharedProvenSizes(records, derive("proven sizes"), PROOF_LIFETIME),
    doubts: new DoubtRecords({
      records,
      secret: derive("doubts"),
      lifetime: Math.max(ttl.clean, ttl.infected),
      ...(worker === undefined ? {} : { worker: String(worker.number) }),
    }),
    machine: worker?.group,
  };
  const parts = opened.move();
  return {
    keys,
    verdicts,
    overrides,
    sharing: sharing ?? new LocalSharing(),
    redis: redis && (() => redis.status),
    shared,
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}

/** Nothing is served before what is blocked has been read, or Redis has not answered for a while. */
async function openOverrides(
  { result_cache: cache }: Config,
  derive: DeriveSecret,
  keys: VerdictKeys,
  redis: RedisRecords | undefined,
  log: Logger,
): Promise<Overrides> {
  await using opened = new AsyncDisposableStack();
  const sources: OverrideSource[] = [];
  const { blocked_hashes_path: list, overrides_path: path } = cache;
  if (list !== undefined) sources.push(opened.use(await BlockList.open({ path: list, keys, log })));
  const file = { path, secret: derive("overrides"), keys, log };
  if (redis === undefined) sources.push(opened.use(await FileOverrides.open(file)));
  else {
    const left = await overridesIn(file);
    const shared = opened.use(new SharedOverrides({ records: redis, keys, log }));
    sources.push(shared);
    if (left.length > 0) {
      await shared.adopt(left);
      log.info({ path, overrides: left.length }, "overrides in the file, from before there was Redis, are taken over into it");
    }
    await shared.firstRead(AbortSignal.timeout(FIRST_READ.limit), FIRST_READ.patience);
  }
  // They are closed with the whole from here on.
  opened.move();
  return new Overrides(sources);
}

export function ttlsOf({ result_cache: { ttl, clean_ttl: clean = ttl, infected_ttl: infected = ttl } }: Config): {
  clean: number;
  infected: number;
} {
  return { clean, infected };
}

function connectionTo(redis: NonNullable<Config["result_cache"]["redis"]>): RedisConnectionOptions {
  const { url, sentinels, master, cluster, username, password, sentinel_password: sentinelPassword, tls } = redis;
  const access = {
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    ...(tls === undefined
      ? {}
      : {
          tls: {
            ...(tls.ca === undefined ? {} : { ca: tls.ca }),
            ...(tls.cert === undefined ? {} : { cert: tls.cert }),
            ...(tls.key === undefined ? {} : { key: tls.key }),
            ...(tls.server_name === undefined ? {} : { serverName: tls.server_name }),
          },
        }),
  };
  if (cluster !== undefined) return { ...access, cluster };
  if (sentinels !== undefined && master !== undefined) {
    return {
      ...access,
      sentinels,
      master,
      tlsToSentinels: tls !== undefined,
      ...(sentinelPassword === undefined ? {} : { sentinelPassword }),
    };
  }
  return { ...access, url: url ?? "" };
}
