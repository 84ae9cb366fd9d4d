/** The composition root: from a configuration to a gateway that answers. */
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { icapOptions } from "./config/icap-options.ts";
import type { Config } from "./config/load.ts";
import { loadRequestKeys, type RequestKeys } from "./crypto/keys.ts";
import { createAdminApp, type Readiness } from "./http/admin.ts";
import { createApp } from "./http/app.ts";
import { ClientAddresses } from "./http/client-address.ts";
import { type Listener, listen } from "./http/server.ts";
import { Homeserver } from "./media/homeserver.ts";
import { createTypeDetector } from "./media/mime.ts";
import { SpoolPool } from "./media/spool.ts";
import type { Logger } from "./observability/log.ts";
import { createMetrics, type Metrics } from "./observability/metrics.ts";
import { GatewayReports } from "./observability/reports.ts";
import { Admission } from "./scan/admission.ts";
import { IcapScanner } from "./scan/icap-scanner.ts";
import { identify } from "./scan/identify.ts";
import { Pipeline } from "./scan/pipeline.ts";
import { Policy } from "./scan/policy.ts";
import type { Scanner } from "./scan/scanner.ts";
import { ScriptScanner } from "./scan/script-scanner.ts";
import { VerdictKeys } from "./verdicts/keys.ts";
import { MemoryVerdictStore } from "./verdicts/memory.ts";
import { RedisRecords } from "./verdicts/redis-records.ts";
import { RedisVerdictStore } from "./verdicts/redis.ts";
import { SharedProvenSizes } from "./verdicts/shared-proofs.ts";
import { PIECE_SIZE, type VerdictStore } from "./verdicts/store.ts";

export interface Gateway extends AsyncDisposable {
  readonly address: { readonly host: string; readonly port: number };
  readonly adminAddress: { readonly host: string; readonly port: number };
  readonly readiness: () => Readiness;
  /** Not ready at once; what runs may finish for `SHUTDOWN_LIMIT`, and is then cut off. */
  shutdown(): Promise<void>;
}

/** Milliseconds; below what orchestrators usually grant between SIGTERM and SIGKILL. */
const SHUTDOWN_LIMIT = 20_000;

/** Milliseconds that other instances may rely on a proven size; the instance that found it proves it again before that. */
const PROOF_LIFETIME = 24 * 60 * 60 * 1000;

/** Milliseconds that all canaries of one service may take together. */
const CANARY_TIMEOUT = 30_000;

/**
 * Starts everything; resolves when both listeners listen. Scanners prove themselves meanwhile: until they have, readiness says so and
 * media is answered 503.
 * @throws whatever keeps it from starting; nothing is left running then.
 */
export async function createGateway(config: Config, options: { readonly log: Logger }): Promise<Gateway> {
  const { log } = options;
  await using started = new AsyncDisposableStack();
  const metrics = createMetrics();
  const reports = new GatewayReports(log, metrics);

  await access(config.scan.temp_directory, constants.R_OK | constants.W_OK | constants.X_OK);
  const keys = started.adopt(await openKeys(config), (open) => open.free());
  for (const warning of keys.warnings) log.warn(warning);
  const source = started.use(openHomeserver(config));
  const spools = started.use(openSpools(config));
  const types = started.use(createTypeDetector());
  const records = openRecords(config, keys, log);
  if (records !== undefined) started.use(records);
  const verdicts = started.use(openVerdicts(config, records));
  const proofs = records && new SharedProvenSizes(records, keys.deriveSecret("proven sizes"), PROOF_LIFETIME);
  const icapScanners = openIcapScanners(config, proofs, reports);
  const scanners: readonly Scanner[] = [...icapScanners, ...openScriptScanner(config, log)];
  for (const scanner of scanners) started.use(scanner);
  const policy = new Policy(
    scanners,
    {
      onUnavailable: config.scan.on_unavailable,
      onUnscannable: config.scan.on_unscannable,
      onModified: config.scan.on_modified,
      allowedTypes: config.scan.allowed_mimetypes,
      blockedTypes: config.scan.blocked_mimetypes ?? [],
    },
    reports,
  );
  const admission = new Admission({
    maxConcurrent: config.scan.max_concurrent,
    maxQueued: config.scan.max_queued,
    maxPerClient: config.scan.max_per_client,
  });
  const pipeline = new Pipeline({
    source,
    spools,
    types,
    policy,
    verdicts,
    keys: new VerdictKeys(keys.deriveSecret("verdict keys")),
    admission,
    // Half of the narrowest scanner that decides: media that arrive slowly leave the other half to those that are there.
    liveScans: () => Math.floor(Math.min(...scanners.filter(({ required }) => required).map(({ capacity }) => capacity)) / 2),
    // Pieces in flight and spools share what may be held in memory.
    streams: Math.max(1, Math.floor(config.scan.spool.memory / 2 / PIECE_SIZE)),
    maxFileSize: config.scan.max_file_size,
    wait: config.scan.wait,
    identify: (request, signal) => identify(request, scanners, source, signal),
    sendsTokens: config.download.base_homeserver_url !== undefined,
    timeout: config.scan.timeout,
    events: reports,
  });
  metrics.observe({
    scanners: () => [
      ...icapScanners.map((scanner) => ({ name: scanner.name, ready: scanner.health().ready, replicas: scanner.replicas() })),
      ...scanners.slice(icapScanners.length).map((scanner) => ({ name: scanner.name, ready: scanner.health().ready, replicas: [] })),
    ],
    requests: () => ({
      active: admission.scans.taken + admission.transfers.taken,
      queued: admission.scans.waiting + admission.transfers.waiting,
    }),
    spool: () => spools.usage(),
  });

  let closing = false;
  const readiness = (): Readiness => (closing ? SHUTTING_DOWN : readinessOf(scanners, verdicts));
  const app = createApp({
    pipeline,
    keys,
    addresses: new ClientAddresses(config.web.trusted_proxies),
    headersToForward: config.download.headers_to_forward,
    report: (report) => reports.request(report),
  });
  const { listener, adminListener } = await openListeners(config, app, readiness, metrics, started);
  for (const scanner of scanners) void scanner.start();

  const parts = started.move();
  let ended: Promise<void> | undefined;
  const shutdown = (): Promise<void> => {
    closing = true;
    ended ??= (async () => {
      const limit = AbortSignal.timeout(SHUTDOWN_LIMIT);
      await Promise.all([listener.close(limit), pipeline.shutdown(limit)]);
      await adminListener.close(AbortSignal.abort());
      await parts.disposeAsync();
    })();
    return ended;
  };
  return { address: listener.address, adminAddress: adminListener.address, readiness, shutdown, [Symbol.asyncDispose]: shutdown };
}

const SHUTTING_DOWN: Readiness = { ready: false, degraded: false, problems: ["shutting down"] };

/** Advisory scanners are told of; only those that decide can make it not ready. */
function readinessOf(scanners: readonly Scanner[], verdicts: VerdictStore): Readiness {
  const health = scanners.map((scanner) => ({ required: scanner.required, ...scanner.health() }));
  const store = verdicts.health();
  const problems = [...health.flatMap((one) => one.problems), ...store.problems];
  return { ready: health.every((one) => one.ready || !one.required), degraded: store.degraded || problems.length > 0, problems };
}

async function openKeys({ crypto }: Config): Promise<RequestKeys> {
  const source =
    crypto.request_secret_path === undefined
      ? { picklePath: crypto.pickle_path, pickleKey: crypto.pickle_key }
      : { secretPath: crypto.request_secret_path };
  return loadRequestKeys(source, crypto.previous_request_secret_paths);
}

function openHomeserver({ download, scan }: Config): Homeserver {
  return new Homeserver({
    ...(download.base_homeserver_url === undefined ? {} : { baseUrl: download.base_homeserver_url }),
    ...(download.proxy === undefined ? {} : { proxy: download.proxy }),
    additionalHeaders: download.additional_headers,
    maxDecodedSize: scan.max_file_size,
  });
}

function openSpools({ scan }: Config): SpoolPool {
  // The other half of the memory belongs to known media on its way through.
  return new SpoolPool({
    memory: scan.spool.memory / 2,
    disk: scan.spool.disk,
    inMemory: PIECE_SIZE,
    directory: scan.temp_directory,
  });
}

function openRecords({ result_cache: { redis } }: Config, keys: RequestKeys, log: Logger): RedisRecords | undefined {
  if (redis === undefined) return undefined;
  const { url, key_prefix: keyPrefix, password } = redis;
  const secret = keys.deriveSecret("verdict records");
  return new RedisRecords({ url, keyPrefix, ...(password === undefined ? {} : { password }), secret, log });
}

function openVerdicts({ result_cache: cache }: Config, records: RedisRecords | undefined): VerdictStore {
  const options = { maxEntries: cache.max_size, ttl: { clean: cache.ttl, infected: cache.ttl } };
  return records === undefined ? new MemoryVerdictStore(options) : new RedisVerdictStore({ ...options, records });
}

function openIcapScanners({ icap, scan }: Config, proofs: SharedProvenSizes | undefined, reports: GatewayReports): IcapScanner[] {
  return icap.map((service) => {
    const { context, suspend, describe_type: describeType } = service;
    return new IcapScanner({
      name: service.name,
      services: icapOptions(service),
      required: service.required,
      canaries: service.canary,
      canaryInterval: scan.canary_interval,
      canaryTimeout: CANARY_TIMEOUT,
      context: {
        clientIp: context.client_ip,
        serverIp: context.server_ip,
        user: context.user,
        userHeader: context.user_header,
        userFormat: context.user_format,
        userEncoding: context.user_encoding,
      },
      ...(describeType === undefined ? {} : { describeType }),
      maxFileSize: scan.max_file_size,
      proveSize: service.prove_size,
      ...(proofs === undefined ? {} : { sharedProofs: proofs }),
      suspend: { failures: suspend.failures, within: suspend.within, pause: suspend.pause, maxPause: suspend.max_pause },
      log: reports,
    });
  });
}

function openScriptScanner({ scan, result_cache }: Config, log: Logger): ScriptScanner[] {
  if (scan.script === undefined) return [];
  const scanner = new ScriptScanner({
    script: scan.script,
    directory: scan.temp_directory,
    timeout: scan.script_timeout,
    exitCodesToIgnore: result_cache.exit_codes_to_ignore,
    ...(scan.removal_command === undefined ? {} : { removalCommand: scan.removal_command }),
    maxConcurrent: scan.max_concurrent,
    log,
  });
  return [scanner];
}

function cutOff(listener: Listener): Promise<void> {
  return listener.close(AbortSignal.abort());
}

async function openListeners(
  config: Config,
  app: ReturnType<typeof createApp>,
  readiness: () => Readiness,
  metrics: Metrics,
  started: AsyncDisposableStack,
): Promise<{ listener: Listener; adminListener: Listener }> {
  const adminListener = started.adopt(await listen(createAdminApp({ readiness, metrics }), config.admin), cutOff);
  const listener = started.adopt(await listen(app, config.web), cutOff);
  return { listener, adminListener };
}
