/** The composition root: from a configuration to a gateway that answers. */
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import type { Config } from "./config/load.ts";
import { homeserverConnections } from "./config/worker-shares.ts";
import { adoptRequestKeys } from "./crypto/keys.ts";
import { createAdminApp, type Readiness } from "./http/admin.ts";
import { createApp } from "./http/app.ts";
import { ClientAddresses } from "./http/client-address.ts";
import { newPseudonym } from "./http/not-from-itself.ts";
import { type Listener, MAX_CONNECTIONS, listen } from "./http/server.ts";
import { Homeserver } from "./media/homeserver.ts";
import { createTypeDetector } from "./media/mime.ts";
import { Permissions } from "./media/permissions.ts";
import type { Credentials } from "./media/source.ts";
import { SpoolPool } from "./media/spool-pool.ts";
import type { Logger } from "./observability/log.ts";
import { createMetrics, type Metrics } from "./observability/metrics.ts";
import { GatewayReports } from "./observability/reports.ts";
import { Admission } from "./scan/admission.ts";
import { Forwarding } from "./scan/forwarding.ts";
import { identify, tellsNothing } from "./scan/identify.ts";
import { MediaMemory } from "./scan/media-memory.ts";
import { Pipeline } from "./scan/pipeline.ts";
import type { MediaRequest } from "./scan/request.ts";
import type { Scanner } from "./scan/scanner.ts";
import { type Scanners, liveScansOf, openScanners, policyFor } from "./scanners.ts";
import { type Stores, type WorkerPlace, openRequestKeys, openStores } from "./stores.ts";
import { openUploads } from "./uploads.ts";
import { PIECE_SIZE } from "./verdicts/store.ts";

/** What clients are answered by. */
export interface Service extends AsyncDisposable {
  readonly address: { readonly host: string; readonly port: number };
  readonly readiness: () => Readiness;
  readonly metrics: Metrics;
  /** Not ready at once; what runs may finish for `SHUTDOWN_LIMIT`, and is then cut off. */
  shutdown(): Promise<void>;
  /** As at the end of `SHUTDOWN_LIMIT`: what runs is cut off. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** Beside it, a second listener for those who run it. */
export interface Gateway extends AsyncDisposable {
  readonly address: { readonly host: string; readonly port: number };
  readonly adminAddress: { readonly host: string; readonly port: number };
  readonly readiness: () => Readiness;
  shutdown(): Promise<void>;
}

/** Milliseconds; below what orchestrators usually grant between SIGTERM and SIGKILL. */
const SHUTDOWN_LIMIT = 20_000;

/** Milliseconds that a worker that takes another's place waits for its scanners before it serves: until then, others do. */
const SETTLING_LIMIT = 5_000;

/** Milliseconds that the homeserver may take over what is passed on to it; it fetches pages of the web for previews. */
const FORWARD_LIMIT = 30_000;

/**
 * Starts everything; resolves when both listeners listen. Scanners prove themselves meanwhile: until they have, readiness says so and
 * media is answered 503.
 * @throws whatever keeps it from starting; nothing is left running then.
 */
export async function createGateway(config: Config, options: { readonly log: Logger }): Promise<Gateway> {
  await using started = new AsyncDisposableStack();
  const service = started.use(await openService(config, options));
  const adminListener = started.adopt(await listen(createAdminApp(service), config.admin), cutOff);
  const parts = started.move();
  let ended: Promise<void> | undefined;
  const shutdown = (): Promise<void> => {
    // Asked for its readiness until the last answer is out.
    ended ??= service.shutdown().then(() => parts.disposeAsync());
    return ended;
  };
  const { address, readiness } = service;
  return { address, adminAddress: adminListener.address, readiness, shutdown, [Symbol.asyncDispose]: shutdown };
}

/**
 * All but the second listener.
 * @param options.worker what sets it apart from others of the same gateway; its limits are in its configuration
 * @throws whatever keeps it from starting; nothing is left running then.
 */
export async function openService(
  config: Config,
  { log, worker }: { readonly log: Logger; readonly worker?: WorkerPlace },
): Promise<Service> {
  await using started = new AsyncDisposableStack();
  const metrics = createMetrics();
  const reports = new GatewayReports(log, metrics);

  await access(config.scan.temp_directory, constants.R_OK | constants.W_OK | constants.X_OK);
  const keys = started.adopt(await (worker === undefined ? openRequestKeys(config) : adoptRequestKeys(worker.secrets)), (open) =>
    open.free(),
  );
  for (const warning of keys.warnings) log.warn(warning);
  const pseudonym = worker?.pseudonym ?? newPseudonym();
  const homeserver = openHomeserver(config, pseudonym);
  const permissions = openPermissions(config, homeserver);
  const source = started.use(permissions ?? homeserver);
  const spools = started.use(openSpools(config));
  const types = started.use(createTypeDetector());
  const stores = started.use(await openStores(config, keys, log, metrics, worker));
  const opened = openScanners(config, stores.shared, reports, log);
  const { icap, scripts, all: scanners } = opened;
  for (const scanner of scanners) started.use(scanner);
  const policy = policyFor(config, opened.for.download, reports);
  const admission = new Admission({
    maxConcurrent: config.scan.max_concurrent,
    maxQueued: config.scan.max_queued,
    maxPerClient: config.scan.max_per_client,
  });
  const memory = openMemory(config);
  const pipeline = new Pipeline({
    source,
    permits: ({ mxc, variant, credentials, asked }) => permissions?.permits(mxc, variant, credentials, asked) ?? false,
    memory,
    spools,
    types,
    policy,
    verdicts: stores.verdicts,
    keys: stores.keys,
    overrides: stores.overrides,
    sharing: stores.sharing,
    admission,
    liveScans: () => liveScansOf(opened),
    // Pieces in flight and spools share what may be held in memory.
    streams: Math.max(1, Math.floor(config.scan.spool.memory / 2 / PIECE_SIZE)),
    maxFileSize: config.scan.max_file_size,
    wait: config.scan.wait,
    ...(tellsNothing(opened.for.download)
      ? {}
      : { identify: (request: MediaRequest, signal: AbortSignal) => identify(request, opened.for.download, source, signal) }),
    sendsTokens: config.download.base_homeserver_url !== undefined,
    timeout: config.scan.timeout,
    events: reports,
  });
  const refused = (credentials: Credentials): void => permissions?.refused(credentials);
  const uploads = started.use(openUploads(config, { pipeline, source, refused, scanners: opened, stores, admission, reports, pseudonym }));
  metrics.observe({
    scanners: () => [
      ...icap.map((scanner) => ({ name: scanner.name, ready: scanner.health().ready, replicas: scanner.replicas() })),
      ...scripts.map((scanner) => ({ name: scanner.name, ready: scanner.health().ready, replicas: [] })),
    ],
    requests: () => admission.requests,
    spool: () => spools.usage(),
    mediaMemory: () => memory.taken,
    ...(stores.redis === undefined ? {} : { redis: stores.redis }),
  });

  let closing = false;
  const readiness = (): Readiness => (closing ? SHUTTING_DOWN : readinessOf(opened, config, stores));
  const app = createApp({
    pipeline,
    keys,
    addresses: new ClientAddresses(config.web.trusted_proxies),
    headersToForward: config.download.headers_to_forward,
    pseudonym,
    transparent: config.transparent.enabled
      ? { forwarding: new Forwarding({ forwarder: source, admission, timeout: FORWARD_LIMIT }), onOpaque: config.transparent.on_opaque }
      : undefined,
    report: (report) => reports.request(report),
    ...uploads.doors,
  });
  const { host, port, workers } = config.web;
  const open = (): Promise<Listener> => listen(app, { host, port, maxConnections: Math.floor(MAX_CONNECTIONS / workers) });
  const replaces = worker?.replaces === true;
  if (replaces) await settled(scanners);
  const listener = started.adopt(await open(), cutOff);
  if (!replaces) for (const scanner of scanners) void scanner.start();

  const parts = started.move();
  let ended: Promise<void> | undefined;
  const cut = new AbortController();
  const end = (limit: AbortSignal): Promise<void> => {
    closing = true;
    ended ??= Promise.all([listener.close(limit), pipeline.shutdown(limit), uploads.shutdown(limit)]).then(() => parts.disposeAsync());
    return ended;
  };
  return {
    address: listener.address,
    readiness,
    metrics,
    shutdown: () => end(AbortSignal.any([cut.signal, AbortSignal.timeout(SHUTDOWN_LIMIT)])),
    [Symbol.asyncDispose]: () => {
      cut.abort();
      return end(cut.signal);
    },
  };
}

const SHUTTING_DOWN: Readiness = { ready: false, degraded: false, problems: ["shutting down"] };

/**
 * Ready while one direction at least works: who takes the gateway out of service because nothing can be uploaded takes downloads with it. Advisory
 * scanners are told of; only those that decide can make it not ready.
 */
function readinessOf(scanners: Scanners, { upload }: Config, { verdicts, overrides }: Stores): Readiness {
  const ready = decide(scanners.for.download) || (upload.enabled && decide(scanners.for.upload));
  const problems = [...scanners.all, verdicts, overrides].flatMap((one) => one.health().problems);
  return { ready, degraded: problems.length > 0, problems };
}

function decide(scanners: readonly Scanner[]): boolean {
  return scanners.every((scanner) => !scanner.required || scanner.health().ready);
}

function openHomeserver({ web, download, scan, transparent, upload }: Config, pseudonym: string): Homeserver {
  return new Homeserver({
    maxConnections: homeserverConnections(web),
    ...(transparent.enabled || upload.enabled ? { pseudonym } : {}),
    ...(download.base_homeserver_url === undefined ? {} : { baseUrl: download.base_homeserver_url }),
    ...(download.proxy === undefined ? {} : { proxy: download.proxy }),
    additionalHeaders: download.additional_headers,
    maxDecodedSize: scan.max_file_size,
  });
}

/** Undefined where each request asks for itself. */
function openPermissions({ download: { authorization_ttl: ttl } }: Config, homeserver: Homeserver): Permissions | undefined {
  return ttl > 0 ? new Permissions({ homeserver, ttl }) : undefined;
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

/** Where the homeserver is asked each time, it sends the bytes as well; those of small media cost less to let come than the connection that would be cut. */
function openMemory({ download, result_cache: { media_memory: bytes, max_file_size: largest } }: Config): MediaMemory {
  return new MediaMemory({ bytes, smallest: download.authorization_ttl > 0 ? 0 : PIECE_SIZE + 1, largest });
}

function cutOff(listener: Listener): Promise<void> {
  return listener.close(AbortSignal.abort());
}

/** Resolves when they have started, or after a while. */
async function settled(scanners: readonly Scanner[]): Promise<void> {
  const { promise: late, resolve } = Promise.withResolvers<void>();
  const limit = setTimeout(resolve, SETTLING_LIMIT);
  await Promise.race([late, Promise.all(scanners.map((scanner) => scanner.start()))]);
  clearTimeout(limit);
}
