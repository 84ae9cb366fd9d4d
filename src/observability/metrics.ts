/** What Prometheus sees. Labels come from closed sets and from names in the configuration, never from a request. */
import { type Aggregator, Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from "prom-client";
import type { ErrorCode } from "../errors.ts";

/** The routes of the scanner API, and the homeserver's own paths; `other` is everything that is none. */
export const METRIC_ROUTES = [
  "download",
  "thumbnail",
  "scan",
  "download_encrypted",
  "scan_encrypted",
  "public_key",
  "scan_file",
  "transparent_download",
  "transparent_thumbnail",
  "transparent_config",
  "transparent_preview_url",
  "upload",
  "create",
  "other",
] as const;
export type MetricRoute = (typeof METRIC_ROUTES)[number];

/** How a request ended: well, with an error, or with the client gone. */
export type MetricOutcome = "ok" | "aborted" | ErrorCode;

/**
 * What a request's media came to: what the scanners said of it; `blocked` or `allowed` by an operator's hand; `sanitised` where what a scanner made of it is handed on in its stead; or `unscanned` where
 * the operator lets pass what nobody could scan.
 */
export type RequestVerdict =
  | "clean"
  | "infected"
  | "blocked"
  | "allowed"
  | "modified"
  | "sanitised"
  | "type_forbidden"
  | "unscannable"
  | "unscanned";

/** Where a request's verdict came from: remembered, made for it, or made for another request at the same time. */
export type VerdictOrigin = "cache" | "scan" | "other_request";

/** How one scanner's look at one file ended. */
export type ScanOutcome = "clean" | "infected" | "modified" | "unscannable" | "failed";

/** How asking an advisory scanner ended; `skipped`: it could not be heard. */
export type AdviceOutcome = ScanOutcome | "skipped";

/** Milliseconds and bytes, as everywhere in this project; Prometheus gets seconds. */
export interface Metrics {
  /** A request has ended. `sent` counts the bytes of its body. */
  request(facts: { route: MetricRoute; status: number; outcome: MetricOutcome; duration: number; sent: number }): void;
  /** The homeserver was asked for media; `bytes` is what came, also when it then failed. */
  download(facts: { outcome: "ok" | "failed"; duration: number; bytes: number }): void;
  /** One scanner has looked at one file, or could not. */
  scan(facts: { scanner: string; outcome: ScanOutcome; duration: number }): void;
  /** A scanner whose word decides nothing had its say. */
  advice(facts: { scanner: string; outcome: AdviceOutcome }): void;
  /** A request got its verdict. */
  verdict(facts: { verdict: RequestVerdict; via: VerdictOrigin }): void;
  /** A request was let through without a verdict. */
  unscanned(): void;
  /** Known media came back with other bytes. */
  changed(): void;
  /** Redis held something under a name of ours that is not what a gateway with our secret writes. */
  dropped(): void;
  /** Content that was clean is now found infected. */
  turned(facts: { scanner: string }): void;
  /** One replica of a scanner began to miss a canary that it is not required to catch, or catches it again. To be told of changes only. */
  canary(facts: { scanner: string; canary: string; missed: boolean }): void;
  /** Values that are read when Prometheus asks. To be called once. */
  observe(sources: MetricSources): void;
  /** The text exposition format, with this content type. */
  render(): Promise<string>;
  readonly contentType: string;
  /** As `MetricsOfWorkers` adds them up. */
  snapshot(): Promise<MetricsSnapshot>;
}

/** All metrics with their values; plain data. */
export type MetricsSnapshot = Awaited<ReturnType<Registry["getMetricsAsJSON"]>>;

export interface MetricSources {
  readonly scanners: () => Iterable<{ readonly name: string; readonly ready: boolean; readonly replicas: readonly MetricReplica[] }>;
  /** Requests at work, and waiting for their turn. */
  readonly requests: () => { readonly active: number; readonly queued: number };
  /** Bytes taken. */
  readonly spool: () => { readonly memory: number; readonly disk: number };
  readonly mediaMemory: () => number;
  /** Where there is one. */
  readonly redis?: () => { readonly usable: boolean; readonly listening: boolean };
}

/** One server of a scanner that has several. */
export interface MetricReplica {
  readonly url: string;
  readonly state: ReplicaState;
  /** Bytes; undefined while it is not known. */
  readonly provenSize: number | undefined;
}

/** `up`: it is used. All others are not: `suspended` (it failed too often), `probed` (its canaries are under way), `down` and `broken`. */
export const REPLICA_STATES = ["up", "suspended", "probed", "down", "broken"] as const;
export type ReplicaState = (typeof REPLICA_STATES)[number];

const DURATIONS = [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300];

/** A registry of its own: two gateways in one process do not share numbers. */
export function createMetrics(): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry, prefix: "mig_" });

  const requests = new Counter({
    name: "mig_requests_total",
    help: "Requests that ended, by route, HTTP status and outcome",
    labelNames: ["route", "status", "outcome"],
    registers,
  });
  const requestDuration = new Histogram({
    name: "mig_request_duration_seconds",
    help: "From the request to the last byte of its answer",
    labelNames: ["route"],
    buckets: DURATIONS,
    registers,
  });
  const sentBytes = new Counter({ name: "mig_sent_bytes_total", help: "Bytes of bodies sent to clients", registers });
  const downloadDuration = new Histogram({
    name: "mig_download_duration_seconds",
    help: "From the request to the homeserver to the last byte from it",
    labelNames: ["outcome"],
    buckets: DURATIONS,
    registers,
  });
  const downloadedBytes = new Counter({ name: "mig_downloaded_bytes_total", help: "Bytes of media from homeservers", registers });
  const scanDuration = new Histogram({
    name: "mig_scan_duration_seconds",
    help: "Time that a scanner took over one file, by scanner and outcome",
    labelNames: ["scanner", "outcome"],
    buckets: DURATIONS,
    registers,
  });
  const advice = new Counter({
    name: "mig_advice_total",
    help: "What scanners said that are not required, by scanner and outcome",
    labelNames: ["scanner", "outcome"],
    registers,
  });
  const verdicts = new Counter({
    name: "mig_verdicts_total",
    help: "Verdicts that requests got, and whether they were remembered (cache), made (scan) or shared (other_request)",
    labelNames: ["verdict", "via"],
    registers,
  });
  const unscanned = new Counter({
    name: "mig_unscanned_total",
    help: "Requests whose media was let through without a verdict, as on_unavailable or on_unscannable allow",
    registers,
  });
  const changed = new Counter({
    name: "mig_changed_media_total",
    help: "Known media that the homeserver sent with other bytes than those that were scanned",
    registers,
  });
  const dropped = new Counter({
    name: "mig_redis_dropped_total",
    help: "Values in Redis that fail their check and are ignored",
    registers,
  });
  const turned = new Counter({
    name: "mig_turned_infected_total",
    help: "Contents whose last verdict was clean, and that a scanner now finds infected",
    labelNames: ["scanner"],
    registers,
  });
  const missedCanaries = new Gauge({
    name: "mig_canary_missed",
    help: "Replicas of a scanner that miss this canary, which they are not required to catch",
    labelNames: ["scanner", "canary"],
    // Workers see the same replicas.
    aggregator: "max",
    registers,
  });

  return {
    request({ route, status, outcome, duration, sent }) {
      requests.inc({ route, status, outcome });
      requestDuration.observe({ route }, duration / 1000);
      sentBytes.inc(sent);
    },
    download({ outcome, duration, bytes }) {
      downloadDuration.observe({ outcome }, duration / 1000);
      downloadedBytes.inc(bytes);
    },
    scan({ scanner, outcome, duration }) {
      scanDuration.observe({ scanner, outcome }, duration / 1000);
    },
    advice(labels) {
      advice.inc(labels);
    },
    verdict(labels) {
      verdicts.inc(labels);
    },
    unscanned() {
      unscanned.inc();
    },
    changed() {
      changed.inc();
    },
    dropped() {
      dropped.inc();
    },
    turned(labels) {
      turned.inc(labels);
    },
    canary({ scanner, canary, missed }) {
      missedCanaries.inc({ scanner, canary }, missed ? 1 : -1);
    },
    observe(sources) {
      observeSources(registry, sources);
    },
    render: () => registry.metrics(),
    contentType: registry.contentType,
    snapshot: () => registry.getMetricsAsJSON(),
  };
}

function observeSources(registry: Registry, sources: MetricSources): void {
  const gauge = <Label extends string>(
    name: string,
    help: string,
    labels: readonly Label[],
    collect: () => Iterable<readonly [labels: Readonly<Record<Label, string>>, value: number]>,
    aggregator: Aggregator = "sum",
  ): void => {
    registry.registerMetric(
      new Gauge({
        name,
        help,
        labelNames: labels,
        aggregator,
        registers: [],
        collect() {
          this.reset();
          for (const [labels, value] of collect()) this.set(labels, value);
        },
      }),
    );
  };
  gauge(
    "mig_scanner_ready",
    "1 while the scanner proves that it works (to every worker), else 0",
    ["scanner"],
    () => [...sources.scanners()].map(({ name, ready }) => [{ scanner: name }, ready ? 1 : 0] as const),
    "min",
  );
  const replicas = () =>
    [...sources.scanners()].flatMap(({ name, replicas }) =>
      replicas.map(({ url, ...replica }) => ({ labels: { scanner: name, replica: url }, ...replica })),
    );
  gauge(
    "mig_replica_state",
    "1 for the state that a scanner's replica is in, else 0; added up over workers",
    ["scanner", "replica", "state"],
    () =>
      replicas().flatMap(({ labels, state }) => REPLICA_STATES.map((one) => [{ ...labels, state: one }, one === state ? 1 : 0] as const)),
  );
  gauge(
    "mig_replica_proven_size_bytes",
    "Up to which size a replica has proved that it scans",
    ["scanner", "replica"],
    () => replicas().flatMap(({ labels, provenSize }) => (provenSize === undefined ? [] : [[labels, provenSize] as const])),
    "min",
  );
  const { redis } = sources;
  if (redis !== undefined) {
    gauge(
      "mig_redis_up",
      "1 while Redis answers (every worker) and keeps what it is given, else 0",
      [],
      () => [[{}, redis().usable ? 1 : 0]],
      "min",
    );
    gauge(
      "mig_redis_listening",
      "1 while messages of other instances are heard through Redis (by every worker), else 0",
      [],
      () => [[{}, redis().listening ? 1 : 0]],
      "min",
    );
  }
  gauge("mig_requests", "Requests at work (active) and waiting for their turn (queued)", ["state"], () => {
    const { active, queued } = sources.requests();
    return Object.entries({ active, queued }).map(([state, number]) => [{ state }, number] as const);
  });
  gauge("mig_media_memory_bytes", "Bytes of clean media that are held to be handed out again", [], () => [[{}, sources.mediaMemory()]]);
  gauge("mig_spool_bytes", "Bytes of media held at the moment, in memory and in unlinked files (disk)", ["place"], () => {
    const { memory, disk } = sources.spool();
    return Object.entries({ memory, disk }).map(([place, bytes]) => [{ place }, bytes] as const);
  });
}
