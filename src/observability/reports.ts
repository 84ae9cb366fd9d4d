/** One function for each thing that happens: it writes the log line and counts, and never throws. */
import { GatewayError } from "../errors.ts";
import { type Logger, logRequest } from "./log.ts";
import {
  type AdviceOutcome,
  METRIC_ROUTES,
  type MetricRoute,
  type Metrics,
  type RequestVerdict,
  type ScanOutcome,
  type VerdictOrigin,
} from "./metrics.ts";

interface Mxc {
  readonly serverName: string;
  readonly mediaId: string;
}

/** What was looked at. */
interface Commission {
  readonly attachment: unknown;
  /** Not known of what is being uploaded. */
  readonly mxc: Mxc | undefined;
}

/** What one HTTP request came to. */
export interface RequestReport {
  /** Empty when what came could not be read as a request. */
  readonly method: string;
  /** The route's pattern, never the path: a path may name what nobody else should know. */
  readonly route: string;
  readonly status: number;
  /** What the client was told instead of an answer. */
  readonly error: GatewayError | undefined;
  /** Of plain media only: where an encrypted file lies is for its readers to know. */
  readonly mxc: Mxc | undefined;
  readonly journal: {
    /** Bytes as they came. */
    readonly size?: number;
    readonly via?: VerdictOrigin;
    readonly verdict?: RequestVerdict;
    readonly threat?: string;
    readonly scanner?: string;
    readonly mime?: string;
    readonly downloadMs?: number;
    readonly scanMs?: number;
  };
  /** Milliseconds from the request's head to the last byte of the answer. */
  readonly durationMs: number;
  /** Bytes of media that were sent. */
  readonly sent: number;
  /** False when the client left, or the media failed, before the last byte. */
  readonly complete: boolean;
  readonly deliveryError: unknown;
}

const SCANNER_PATH = /^\/_matrix\/media_proxy\/unstable\/([a-z_]+)/;
const CLIENT_SERVER_PATH = /^\/_matrix\/(?:client\/(?:v1|unstable\/org\.matrix\.msc3916)\/media|media\/[a-z0-9]+)\/([a-z_]+)/;

export class GatewayReports {
  readonly #log: Logger;
  readonly #metrics: Metrics;

  constructor(log: Logger, metrics: Metrics) {
    this.#log = log;
    this.#metrics = metrics;
  }

  request(report: RequestReport): void {
    const { journal } = report;
    const route = routeName(report.route);
    const media = mediaOf(route, report.mxc);
    const outcome = report.error?.code ?? (report.complete ? "ok" : "aborted");
    this.#metrics.request({ route, status: report.status, outcome, duration: report.durationMs, sent: report.sent });
    if (journal.verdict !== undefined && journal.via !== undefined) this.#metrics.verdict({ verdict: journal.verdict, via: journal.via });
    logRequest(this.#log, {
      ...journal,
      method: report.method,
      route,
      status: report.status,
      outcome,
      duration: report.durationMs,
      sent: report.sent,
      media,
      // The outcome tells the code. The text may name the server, and so whose room an encrypted file belongs to.
      error: media?.encrypted === true && isForeseen(report.error) ? undefined : (report.error ?? report.deliveryError),
    });
  }

  unscanned(_request: unknown, why: string): void {
    this.#metrics.unscanned();
    this.#log.warn({ why }, "media is let through without a verdict");
  }

  changed(_request: unknown, why: string): void {
    this.#metrics.changed();
    this.#log.warn({ why }, "the homeserver sent other bytes than those that were scanned; they are scanned anew");
  }

  turned(commission: Commission, record: { readonly scanner: string; readonly threat: string }): void {
    this.#metrics.turned({ scanner: record.scanner });
    const { scanner, threat } = record;
    this.#log.warn(
      { audit: "turned_infected", scanner, threat, media: namesOf(commission) },
      "media that was clean until now is found infected; it was handed out before",
    );
  }

  abandoned({ attachment }: { readonly attachment: unknown }, error: unknown): void {
    const told = attachment !== undefined && isForeseen(error) ? { outcome: error.code } : { err: error };
    this.#log.warn(told, "a scan that no client waits for any more failed");
  }

  downloaded(ok: boolean, bytes: number, milliseconds: number): void {
    this.#metrics.download({ outcome: ok ? "ok" : "failed", bytes, duration: milliseconds });
  }

  scanned(scanner: string, outcome: ScanOutcome, milliseconds: number): void {
    this.#metrics.scan({ scanner, outcome, duration: milliseconds });
  }

  advised(commission: Commission, scanner: string, outcome: AdviceOutcome, detail: string | undefined): void {
    this.#metrics.advice({ scanner, outcome });
    if (outcome === "clean") return;
    // Its own state is told once; each file that it could not look at would say the same again.
    const level = outcome === "failed" || outcome === "skipped" ? "debug" : "warn";
    // The text of a failure may name the server of an encrypted file.
    const told = commission.attachment !== undefined && outcome === "failed" ? {} : { detail };
    this.#log[level](
      { scanner, outcome, ...told, media: namesOf(commission) },
      "an advisory scanner did not pass media; that decides nothing",
    );
  }

  proven(scanner: string, isTag: string): void {
    this.#log.info({ scanner, isTag }, "the scanner caught its canaries and is used");
  }

  unproven(scanner: string, state: "broken" | "down" | "suspended", why: string): void {
    this.#log.error({ scanner, state, why }, `the scanner is ${state}; it is not used until it has proved itself again`);
  }

  sizeProven(scanner: string, isTag: string, size: number, wanted: number, advice?: string): void {
    const facts = { scanner, isTag, size, wanted, ...(advice === undefined ? {} : { advice }) };
    if (size >= wanted) this.#log.info(facts, "the scanner has proved that it scans media of any size that is let in");
    else
      this.#log.warn(
        facts,
        "the scanner does not scan media as large as scan.max_file_size; what is larger than this size is answered 503",
      );
  }

  doubtsLearned(scanner: string, doubts: readonly { readonly of: string; readonly from: number; readonly until: number }[]): void {
    for (const { of, from, until } of doubts) {
      this.#log.warn(
        { scanner, of, from: isoTime(from), until: isoTime(until) },
        "another instance found that the scanner may not have worked; what it said in this time is asked again",
      );
    }
  }

  missed(scanner: string, canary: string, missed: boolean, advice: string): void {
    this.#metrics.canary({ scanner, canary, missed });
    if (missed) this.#log.warn({ scanner, canary, advice }, "the scanner misses a canary that it is not required to catch");
    else this.#log.info({ scanner, canary }, "the scanner catches this canary again");
  }
}

/** The last moment that a Date can hold. */
const LATEST = 8.64e15;

function isoTime(milliseconds: number): string {
  return new Date(Math.min(milliseconds, LATEST)).toISOString();
}

function isForeseen(error: unknown): error is GatewayError {
  return error instanceof GatewayError && error.code !== "internal";
}

/** As in the line of a request: where an encrypted file lies is for its readers to know. */
function namesOf({ attachment, mxc }: Commission): Record<string, unknown> {
  if (attachment !== undefined) return { encrypted: true };
  return mxc === undefined ? { uploaded: true } : { encrypted: false, ...mxc };
}

/** By the patterns of the routes, of which there are a few dozen: never by a path, which clients could make up without end. */
const ROUTE_NAMES = new Map<string, MetricRoute>();

function routeName(pattern: string): MetricRoute {
  const known = ROUTE_NAMES.get(pattern);
  if (known !== undefined) return known;
  const name = nameFor(pattern);
  ROUTE_NAMES.set(pattern, name);
  return name;
}

function nameFor(pattern: string): MetricRoute {
  const scanner = SCANNER_PATH.exec(pattern)?.[1];
  const clientServer = CLIENT_SERVER_PATH.exec(pattern)?.[1];
  const isUpload = clientServer === "upload" || clientServer === "create";
  const name = isUpload ? clientServer : clientServer === undefined ? scanner : `transparent_${clientServer}`;
  return METRIC_ROUTES.find((route) => route === name) ?? "other";
}

function mediaOf(route: MetricRoute, mxc: RequestReport["mxc"]): Parameters<typeof logRequest>[1]["media"] {
  if (mxc !== undefined) return { encrypted: false, serverName: mxc.serverName, mediaId: mxc.mediaId };
  return route.endsWith("_encrypted") ? { encrypted: true } : undefined;
}
