/** The gateway from its HTTP door to a homeserver, with a scanner that tests can steer in the place of ICAP. */
import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadRequestKeys, type RequestKeys } from "../../src/crypto/keys.ts";
import { BASE_PATH, createApp, type RequestReport } from "../../src/http/app.ts";
import { ClientAddresses } from "../../src/http/client-address.ts";
import { listen } from "../../src/http/server.ts";
import { Homeserver } from "../../src/media/homeserver.ts";
import { HomeserverStore } from "../../src/media/media-store.ts";
import { createTypeDetector } from "../../src/media/mime.ts";
import { Permissions } from "../../src/media/permissions.ts";
import { SpoolBudget } from "../../src/media/spool-budget.ts";
import { SpoolPool } from "../../src/media/spool-pool.ts";
import { UploadLimits } from "../../src/media/upload-limits.ts";
import { Admission, type AdmissionOptions } from "../../src/scan/admission.ts";
import { MediaMemory } from "../../src/scan/media-memory.ts";
import { Pipeline, type PipelineOptions } from "../../src/scan/pipeline.ts";
import { Policy, type PolicyOptions } from "../../src/scan/policy.ts";
import type { AdviceOutcome } from "../../src/observability/metrics.ts";
import type { PipelineEvents } from "../../src/scan/events.ts";
import { FileChecks } from "../../src/scan/file-check.ts";
import { Foresight } from "../../src/scan/foresight.ts";
import { Forwarding } from "../../src/scan/forwarding.ts";
import { identify } from "../../src/scan/identify.ts";
import { panelOf } from "../../src/scan/recall.ts";
import { Reception } from "../../src/scan/reception.ts";
import type { ScanContext, Scanner } from "../../src/scan/scanner.ts";
import { Uploads } from "../../src/scan/uploads.ts";
import { VerdictKeys } from "../../src/verdicts/keys.ts";
import { MemoryVerdictStore } from "../../src/verdicts/memory.ts";
import type { Override, OverrideBook } from "../../src/verdicts/overrides.ts";
import type { RedisRecords } from "../../src/verdicts/redis-records.ts";
import { SharedVerdictStore } from "../../src/verdicts/shared-verdicts.ts";
import { LocalSharing, LeaseSharing } from "../../src/verdicts/sharing.ts";
import type { VerdictStore } from "../../src/verdicts/store.ts";
import { FakeHomeserver } from "./fake-homeserver.ts";
import { FakeScanner } from "./fake-scanner.ts";

export interface HarnessOptions {
  readonly scanners?: readonly Scanner[];
  /** Serves uploads and checks of files as well. */
  readonly uploads?: {
    /** Those that are asked about uploads; the same, if not given. */
    readonly scanners?: readonly Scanner[];
    /** Bytes that uploads may hold of the spool together. */
    readonly share?: number;
    /** Milliseconds that the homeserver may take for an answer to an upload. */
    readonly patience?: number;
  };
  readonly policy?: Partial<PolicyOptions>;
  readonly admission?: Partial<AdmissionOptions>;
  readonly pipeline?: Partial<Pick<PipelineOptions, "wait" | "timeout" | "maxFileSize" | "liveScans" | "streams">>;
  readonly bodyIdle?: number;
  /** Milliseconds that the homeserver's yes counts, by a clock of the test's; not at all by default. */
  readonly authorizationTtl?: number;
  readonly now?: () => number;
  /** Bytes of clean media that are held; none by default. */
  readonly mediaMemory?: number;
  /** Bytes of the smallest media that is held there; 0 by default. */
  readonly smallestHeld?: number;
  /** Serves the homeserver's own media paths as well. */
  readonly transparent?: { readonly onOpaque: "pass" | "block"; readonly timeout?: number };
  /** Bytes of all spools together. */
  readonly spool?: { readonly memory: number; readonly disk: number };
  /** Whom the scanners are told of, by the token of the request. */
  readonly context?: (token: string | undefined) => ScanContext;
  /** Shared with other harnesses, as instances of one gateway are: their homeserver, their secret, and Redis if there is one. */
  readonly shared?: {
    readonly homeserver: FakeHomeserver;
    readonly secret: Buffer;
    readonly records?: RedisRecords;
    readonly now?: () => number;
  };
}

/** Overrides that a test sets, by the bytes they are about. */
export class TestOverrides implements OverrideBook {
  readonly #keys: VerdictKeys;
  readonly #overrides = new Map<string, Override>();
  readonly #forgotten = new Map<string, number>();
  /** Milliseconds since the epoch. */
  lastForgotten = -Infinity;

  constructor(keys: VerdictKeys) {
    this.#keys = keys;
  }

  set(kind: Override["kind"], bytes: Uint8Array): void {
    this.#overrides.set(this.#digest(bytes), { kind, reason: "a test says so", at: Date.now(), expiresAt: undefined });
  }

  lift(bytes: Uint8Array): void {
    this.#overrides.delete(this.#digest(bytes));
  }

  /** As of now. */
  forget(bytes: Uint8Array): void {
    this.lastForgotten = Date.now();
    this.#forgotten.set(this.#digest(bytes), this.lastForgotten);
  }

  of(digest: string): Override | undefined {
    return this.#overrides.get(digest);
  }

  forgottenAt(digest: string): number {
    return this.#forgotten.get(digest) ?? -Infinity;
  }

  get allowsAny(): boolean {
    return [...this.#overrides.values()].some(({ kind }) => kind === "allow");
  }

  health(): ReturnType<OverrideBook["health"]> {
    return { degraded: false, problems: [] };
  }

  #digest(bytes: Uint8Array): string {
    return this.#keys.digest(createHash("sha256").update(bytes).digest());
  }
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Buffer;
  readonly json: Record<string, unknown>;
}

export interface Harness extends AsyncDisposable {
  readonly url: string;
  readonly homeserver: FakeHomeserver;
  readonly scanner: FakeScanner;
  readonly verdicts: VerdictStore;
  readonly overrides: TestOverrides;
  readonly keys: RequestKeys;
  readonly reports: RequestReport[];
  /** What was clean before and is now infected. */
  readonly turned: { readonly threat: string }[];
  /** What came of asking advisory scanners. */
  readonly advice: { readonly scanner: string; readonly outcome: AdviceOutcome; readonly detail: string | undefined }[];
  /** Spools that hold memory or disk at the moment. */
  spooled(): { memory: number; disk: number };
  /** Scans that wait for their turn. */
  queued(): number;
  /** Media on the homeserver that every valid token may read. */
  put(bytes: Uint8Array, more?: Partial<Parameters<FakeHomeserver["put"]>[1]>): string;
  /** A path that begins with a slash is whole, any other is one of the scanner API's. */
  get(path: string, token?: string, init?: RequestInit): Promise<Answer>;
  post(path: string, body: unknown, token?: string): Promise<Answer>;
  /** Uploads and checks of files that hold a place. */
  uploadsInside(): number;
  /** As at the end of the process: what runs is cut off. */
  shutdown(): Promise<void>;
}

export const TOKEN = "alice";
const PSEUDONYM = "matrix-icap-gateway-test";

export async function startHarness(options: HarnessOptions = {}): Promise<Harness> {
  await using stack = new AsyncDisposableStack();
  const directory = stack.adopt(await mkdtemp(join(tmpdir(), "mig-harness-")), (path) => rm(path, { recursive: true }));
  const { shared } = options;
  const homeserver = shared?.homeserver ?? stack.use(await FakeHomeserver.start());
  homeserver.addToken(TOKEN);
  const scanner = new FakeScanner();
  const keys = stack.adopt(await loadRequestKeys({ secretPath: join(directory, "secret") }), (loaded) => loaded.free());
  const spools = stack.use(new SpoolPool({ memory: 64 << 20, disk: 1 << 30, inMemory: 1 << 20, directory, ...options.spool }));
  const verdictKeys = new VerdictKeys(shared?.secret ?? randomBytes(32));
  const kept = {
    maxEntries: 1000,
    ttl: { clean: 3_600_000, infected: 3_600_000 },
    ...(shared?.now === undefined ? {} : { now: shared.now }),
  };
  const { records } = shared ?? {};
  const verdicts = stack.use(records === undefined ? new MemoryVerdictStore(kept) : new SharedVerdictStore({ ...kept, records }));
  const sharing = records === undefined ? new LocalSharing() : stack.use(new LeaseSharing({ records, patience: 60_000 }));
  const overrides = new TestOverrides(verdictKeys);
  const source = new Homeserver({
    baseUrl: homeserver.url,
    additionalHeaders: {},
    pseudonym: PSEUDONYM,
    maxDecodedSize: options.pipeline?.maxFileSize ?? 200 << 20,
    timeouts: { bodyIdle: options.bodyIdle ?? 10_000 },
  });
  const { authorizationTtl: ttl, now } = options;
  const permissions = ttl === undefined ? undefined : new Permissions({ homeserver: source, ttl, ...(now === undefined ? {} : { now }) });
  const asked = stack.use(permissions ?? source);
  const advice: Harness["advice"] = [];
  const turned: { threat: string }[] = [];
  const events: PipelineEvents = {
    turned: (_request, { threat }) => turned.push({ threat }),
    unscanned() {},
    changed() {},
    abandoned() {},
    downloaded() {},
    scanned() {},
    advised: (_request, scanner, outcome, detail) => advice.push({ scanner, outcome, detail }),
  };
  const scanners = options.scanners ?? [scanner];
  const policyOptions: PolicyOptions = {
    onUnavailable: "block",
    onUnscannable: "block",
    onModified: "block",
    allowedTypes: undefined,
    blockedTypes: [],
    ...options.policy,
  };
  const admission = new Admission({ maxConcurrent: 64, maxQueued: 512, maxPerClient: 1000, ...options.admission });
  const maxFileSize = options.pipeline?.maxFileSize ?? 200 << 20;
  const wait = options.pipeline?.wait ?? 60_000;
  const timeout = options.pipeline?.timeout ?? 60_000;
  const pipeline = new Pipeline({
    source: asked,
    permits: ({ mxc, variant, credentials, asked }) => permissions?.permits(mxc, variant, credentials, asked) ?? false,
    memory: new MediaMemory({
      bytes: options.mediaMemory ?? 0,
      smallest: options.smallestHeld ?? 0,
      largest: options.mediaMemory ?? 0,
    }),
    spools,
    types: stack.use(createTypeDetector()),
    policy: new Policy(scanners, policyOptions, events),
    verdicts,
    keys: verdictKeys,
    overrides,
    sharing,
    admission,
    liveScans: () => ({ download: 4, upload: 4 }),
    streams: 16,
    maxFileSize: 200 << 20,
    wait: 60_000,
    sendsTokens: true,
    identify: async (request, signal) => {
      const token = request.credentials.authorization?.replace("Bearer ", "");
      return options.context === undefined ? identify(request, scanners, asked, signal) : options.context(token);
    },
    timeout: 60_000,
    events,
    ...options.pipeline,
  });
  const uploadScanners = options.uploads?.scanners ?? scanners;
  const panelFor = (asked: readonly Scanner[]) =>
    panelOf({ verdicts, overrides, policy: new Policy(asked, { ...policyOptions, onModified: "block" }, events) });
  const room = options.uploads?.share ?? 1 << 30;
  const share = new SpoolBudget({ memory: room, disk: room, inMemory: 1 << 20 });
  const reception = new Reception({ identifier: asked, admission, share, maxFileSize, wait });
  const store = stack.use(
    new HomeserverStore({
      baseUrl: homeserver.url,
      pseudonym: PSEUDONYM,
      additionalHeaders: {},
      timeouts: { headers: options.uploads?.patience ?? 60_000 },
    }),
  );
  const common = { reception, examination: pipeline.examination, timeout, events };
  const uploads = new Uploads({
    ...common,
    admission,
    panel: panelFor(uploadScanners),
    scanners: uploadScanners,
    store,
    limits: new UploadLimits(store),
    foresight: new Foresight({ verdicts, keys: verdictKeys, downloads: pipeline.panel }),
  });
  const everyone = [...new Set([...scanners, ...uploadScanners])];
  const fileChecks = new FileChecks({ ...common, panel: panelFor(everyone), scanners: everyone, requiresToken: true, maxFileSize });
  const reports: RequestReport[] = [];
  const app = createApp({
    pipeline,
    ...(options.uploads === undefined ? {} : { uploads, fileChecks }),
    keys,
    addresses: new ClientAddresses([]),
    headersToForward: ["x-forwarded-test"],
    pseudonym: PSEUDONYM,
    transparent: options.transparent && {
      forwarding: new Forwarding({ forwarder: source, admission, timeout: options.transparent.timeout ?? 10_000 }),
      onOpaque: options.transparent.onOpaque,
    },
    report: (report) => reports.push(report),
  });
  const listener = stack.adopt(await listen(app, { host: "127.0.0.1", port: 0 }), (open) => open.close(AbortSignal.abort()));
  stack.defer(() => pipeline.shutdown(AbortSignal.abort()));
  stack.defer(() => reception.shutdown(AbortSignal.abort()));
  const parts = stack.move();
  const url = `http://127.0.0.1:${listener.address.port}`;

  const request = async (path: string, token: string | undefined, init: RequestInit): Promise<Answer> => {
    const headers = new Headers(init.headers);
    if (token !== undefined) headers.set("authorization", `Bearer ${token}`);
    const response = await fetch(path.startsWith("/") ? `${url}${path}` : `${url}${BASE_PATH}/${path}`, {
      ...init,
      headers,
      redirect: "manual",
    });
    const body = Buffer.from(await response.arrayBuffer());
    const isJson = (response.headers.get("content-type") ?? "").startsWith("application/json") && body.length > 0;
    return {
      status: response.status,
      headers: response.headers,
      body,
      json: isJson ? (JSON.parse(body.toString()) as Answer["json"]) : {},
    };
  };
  return {
    url,
    homeserver,
    scanner,
    verdicts,
    keys,
    reports,
    advice,
    overrides,
    turned,
    spooled: () => spools.usage(),
    queued: () => admission.scans.waiting,
    put: (bytes, more = {}) => {
      const { serverName, mediaId } = homeserver.put(randomBytes(12).toString("hex"), { bytes, ...more });
      return `${serverName}/${mediaId}`;
    },
    get: (path, token, init = {}) => request(path, token, init),
    post: (path, body, token) => request(path, token, { method: "POST", body: typeof body === "string" ? body : JSON.stringify(body) }),
    shutdown: async () => {
      await Promise.all([pipeline.shutdown(AbortSignal.abort()), reception.shutdown(AbortSignal.abort())]);
    },
    uploadsInside: () => admission.uploads.taken,
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}
