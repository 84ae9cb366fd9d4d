/**
 * The load generator, a process of its own. It gets a `LoadSpec` from its parent, says when it begins to measure, and then how it went.
 *
 * It reads sockets by itself: on loopback, an HTTP client of Node spends as much on each request as the gateway does, or more, and on two cores that is what
 * would be measured (10 KiB: undici 41 µs, this 18 µs; 1 MiB: undici 1.7 ms, this 0.2 ms).
 */
import { once } from "node:events";
import { type RecordableHistogram, createHistogram } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { LoadConnection } from "./load-connection.ts";
import { Requests } from "./load-requests.ts";
import type { LoadMessage, LoadResult, LoadSpec, Spread } from "./load-spec.ts";

const EXAMPLES = 3;
/** Errors of one connection after another, before it gives up. */
const PATIENCE = 20;

async function run(spec: LoadSpec): Promise<LoadResult> {
  const load = new Load(spec, await Requests.prepare(spec));
  await load.connect();
  try {
    return await ("time" in spec.until ? load.forTime(spec.until) : load.forRequests(spec.until.requests));
  } finally {
    load.close();
  }
}

class Load {
  readonly #connections: readonly LoadConnection[];
  readonly #prepared: Requests;
  #latency = createHistogram();
  #firstByte = createHistogram();
  #requests = 0;
  #bytes = 0;
  #errors = 0;
  readonly #examples: string[] = [];
  #left = Infinity;

  constructor({ targets, connections, size }: LoadSpec, prepared: Requests) {
    this.#prepared = prepared;
    this.#connections = Array.from(
      { length: connections },
      (_, index) => new LoadConnection(new URL(targets[index % targets.length] ?? ""), size),
    );
  }

  async connect(): Promise<void> {
    await Promise.all(this.#connections.map((connection) => connection.connect()));
  }

  close(): void {
    for (const connection of this.#connections) connection.close();
  }

  /** What is under way when the measuring begins counts, as what is under way at its end does not. */
  async forTime({ warmUp, time }: { readonly warmUp: number; readonly time: number }): Promise<LoadResult> {
    const over = this.#all();
    await Promise.race([sleep(warmUp), over]);
    const started = this.#begin();
    await Promise.race([sleep(time), over]);
    return this.#result(started);
  }

  async forRequests(requests: number): Promise<LoadResult> {
    this.#left = requests;
    const started = this.#begin();
    await this.#all();
    return this.#result(started);
  }

  /** Errors of the warm-up are not forgotten. */
  #begin(): number {
    this.#latency = createHistogram();
    this.#firstByte = createHistogram();
    this.#requests = 0;
    this.#bytes = 0;
    process.send?.({ measuring: true } satisfies LoadMessage);
    return performance.now();
  }

  #result(started: number): LoadResult {
    const elapsed = performance.now() - started;
    return {
      requests: this.#requests,
      bytes: this.#bytes,
      elapsed,
      latency: spreadOf(this.#latency),
      firstByte: spreadOf(this.#firstByte),
      errors: this.#errors,
      examples: [...this.#examples],
    };
  }

  async #all(): Promise<void> {
    await Promise.all(this.#connections.map((connection, index) => this.#askOn(connection, index)));
  }

  async #askOn(connection: LoadConnection, index: number): Promise<void> {
    let failures = 0;
    while (this.#left > 0 && failures < PATIENCE) {
      this.#left -= 1;
      try {
        const { latency, firstByte, bytes } = await connection.ask(this.#prepared.next(index));
        this.#latency.record(microseconds(latency));
        this.#firstByte.record(microseconds(firstByte));
        this.#requests += 1;
        this.#bytes += bytes;
        failures = 0;
      } catch (error) {
        failures += 1;
        this.#note(error);
      }
    }
  }

  #note(error: unknown): void {
    this.#errors += 1;
    const text = error instanceof Error ? error.message : String(error);
    if (this.#examples.length < EXAMPLES && !this.#examples.includes(text)) this.#examples.push(text);
  }
}

function microseconds(milliseconds: number): number {
  return Math.max(1, Math.round(milliseconds * 1000));
}

function spreadOf(histogram: RecordableHistogram): Spread {
  return { p50: histogram.percentile(50) / 1000, p99: histogram.percentile(99) / 1000 };
}

// Last, for it needs what stands above.
if (process.argv[1] === import.meta.filename) {
  process.once("disconnect", () => process.exit());
  const [spec] = (await once(process, "message")) as [LoadSpec];
  const message = await run(spec).then(
    (result): LoadMessage => ({ result }),
    (error: unknown): LoadMessage => ({ failure: String(error) }),
  );
  process.send?.(message, () => process.exit());
}
