/** One function for each thing that happens: it writes the log line and counts, and never throws. */
import type { GatewayError } from "../errors.ts";
import { type Logger, logRequest } from "./log.ts";
import type { MetricRoute, Metrics } from "./metrics.ts";

/** What one HTTP request came to; milliseconds and bytes. */
interface RequestReport {
  readonly method: string;
  readonly route: string;
  readonly status: number;
  readonly error: GatewayError | undefined;
  readonly mxc: { readonly serverName: string; readonly mediaId: string } | undefined;
  readonly journal: {
    readonly size?: number;
    readonly via?: "cache" | "scan" | "other_request";
    readonly verdict?: "clean" | "infected" | "type_forbidden" | "unscannable" | "unscanned";
    readonly threat?: string;
    readonly scanner?: string;
    readonly mime?: string;
    readonly downloadMs?: number;
    readonly scanMs?: number;
  };
  readonly durationMs: number;
  readonly sent: number;
  readonly complete: boolean;
  readonly deliveryError: unknown;
}

const ROUTES: ReadonlySet<string> = new Set(["download", "thumbnail", "scan", "download_encrypted", "scan_encrypted", "public_key"]);

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
      media: mediaOf(route, report.mxc),
      error: report.error ?? report.deliveryError,
    });
  }

  unscanned(_request: unknown, why: string): void {
    this.#log.warn({ why }, "media is let through without a verdict");
  }

  changed(_request: unknown, why: string): void {
    this.#log.warn({ why }, "the homeserver sent other bytes than those that were scanned; they are scanned anew");
  }

  abandoned(error: unknown): void {
    this.#log.warn({ err: error }, "a scan that no client waits for any more failed");
  }

  downloaded(ok: boolean, bytes: number, milliseconds: number): void {
    this.#metrics.download({ outcome: ok ? "ok" : "failed", bytes, duration: milliseconds });
  }

  scanned(scanner: string, outcome: "clean" | "infected" | "unscannable" | "failed", milliseconds: number): void {
    this.#metrics.scan({ scanner, outcome, duration: milliseconds });
  }

  proven(scanner: string, isTag: string): void {
    this.#log.info({ scanner, isTag }, "the scanner caught its canaries and is used");
  }

  unproven(scanner: string, state: "broken" | "down", why: string): void {
    this.#log.error({ scanner, state, why }, `the scanner is ${state}; media that it has to scan is blocked`);
  }

  missed(scanner: string, canary: string, advice: string): void {
    this.#log.warn({ scanner, canary, advice }, "the scanner misses a canary that it is not required to catch");
  }
}

function routeName(pattern: string): MetricRoute {
  const name = pattern.split("/")[4] ?? "";
  return ROUTES.has(name) ? (name as MetricRoute) : "other";
}

function mediaOf(route: MetricRoute, mxc: RequestReport["mxc"]): Parameters<typeof logRequest>[1]["media"] {
  if (mxc !== undefined) return { encrypted: false, ...mxc };
  return route.endsWith("_encrypted") ? { encrypted: true } : undefined;
}
