/** What Prometheus sees of several processes: one gateway. */
import { AggregatorRegistry, Counter, Gauge, Registry, collectDefaultMetrics } from "prom-client";
import type { MetricsSnapshot } from "./metrics.ts";

export interface WorkersCount {
  /** As many should serve. */
  readonly wanted: number;
  readonly serving: number;
  readonly replaced: number;
}

/** Metrics that only ever grow. */
const CUMULATIVE: ReadonlySet<unknown> = new Set(["counter", "histogram"]);

/** Invariant: what has been shown of a counter is never taken back, though the worker that counted be gone. */
export class MetricsOfWorkers {
  readonly #own = new Registry();
  /** The last that came of each. */
  readonly #latest = new Map<object, MetricsSnapshot>();
  /** What those counted that are gone. */
  #past: MetricsSnapshot = [];

  constructor(count: () => WorkersCount) {
    collectDefaultMetrics({ register: this.#own, prefix: "mig_" });
    this.#own.registerMetric(
      new Gauge({
        name: "mig_workers",
        help: "Worker processes that serve, and that should (wanted)",
        labelNames: ["state"],
        registers: [],
        collect() {
          const { serving, wanted } = count();
          this.set({ state: "serving" }, serving);
          this.set({ state: "wanted" }, wanted);
        },
      }),
    );
    this.#own.registerMetric(
      new Counter({
        name: "mig_workers_replaced_total",
        help: "Worker processes that died and were replaced",
        registers: [],
        collect() {
          this.reset();
          this.inc(count().replaced);
        },
      }),
    );
  }

  get contentType(): string {
    return this.#own.contentType;
  }

  /** In place of what this worker told before. */
  keep(worker: object, snapshot: MetricsSnapshot): void {
    this.#latest.set(worker, snapshot);
  }

  /** What it counted stays. */
  gone(worker: object): void {
    const last = this.#latest.get(worker);
    this.#latest.delete(worker);
    if (last === undefined) return;
    const counted = last.filter(({ type }) => CUMULATIVE.has(type));
    // Registered metrics are the sums themselves, with a method beside them.
    this.#past = sumOf([this.#past, counted]).getMetricsAsArray() as MetricsSnapshot;
  }

  /** The text exposition format. */
  async render(): Promise<string> {
    const own: MetricsSnapshot = await this.#own.getMetricsAsJSON();
    // Where only one can be told, such as when the process began, it is this process's.
    const first = own.map((metric) => (metric.aggregator === "omit" ? { ...metric, aggregator: "first" as const } : metric));
    return sumOf([first, ...this.#latest.values(), this.#past]).metrics();
  }
}

function sumOf(snapshots: readonly MetricsSnapshot[]): Registry {
  return AggregatorRegistry.aggregate([...snapshots]);
}
