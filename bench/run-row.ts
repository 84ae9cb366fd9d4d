/** Runs rows: for each run, the ceilings first, then the row itself, each with gateways of its own. */
import { randomBytes } from "node:crypto";
import { type Figures, medianOf } from "./figures.ts";
import type { Gateway } from "./gateway.ts";
import type { LoadResult, LoadSpec } from "./load-spec.ts";
import { TAIL_SIZE } from "./media.ts";
import { measureLoad, measureRawIcap } from "./measurements.ts";
import { type Probe, homeserverProbe, redisProbe, scansProbe } from "./probes.ts";
import type { CeilingKind, FactRow, Facts, LoadRow, ProbeKind, Row, Scanner } from "./row.ts";
import type { Stage } from "./stage.ts";

export interface Ceilings {
  readonly homeserver?: Figures;
  /** Bodies a second. */
  readonly icap?: number;
}

export interface LoadOutcome {
  readonly row: LoadRow;
  /** Medians. */
  readonly figures: Figures;
  readonly ceilings: Ceilings;
  readonly facts: Facts;
  readonly runs: readonly Figures[];
  /** In all runs. */
  readonly errors: number;
  readonly examples: readonly string[];
}

export interface FactOutcome {
  readonly row: FactRow;
  /** Medians. */
  readonly facts: Facts;
  readonly runs: readonly Facts[];
}

/** It could not be measured at all. */
export interface Failure {
  readonly row: Row;
  readonly failure: string;
}

export type Outcome = LoadOutcome | FactOutcome | Failure;

/** What a gateway is warmed up with whose row is too short for it. */
const WARM_UP_LOAD = { size: 10 * 1024, media: 16, connections: 32 };

/** What answers requests in one run. */
export interface Served {
  readonly urls: readonly string[];
  /** Those whose CPU time and memory count; none where nobody knows them. */
  readonly pids: readonly number[];
}

export interface RunOptions {
  readonly runs: number;
  /** Milliseconds. */
  readonly duration: number;
  /** Milliseconds of the same load, or of small media, before that: a gateway runs for months, and what V8 has not compiled yet costs twice as much. */
  readonly warmUp: number;
  /** What runs already, in place of gateways for each run. */
  readonly given?: Served;
}

export class Runner {
  readonly #stage: Stage;
  readonly #options: RunOptions;
  /** Of one run each, by what was measured: rows share them. */
  readonly #ceilings = new Map<string, Promise<Ceilings>>();

  constructor(stage: Stage, options: RunOptions) {
    this.#stage = stage;
    this.#options = options;
  }

  /** Never rejects: one row that fails leaves the others to be measured. */
  async run(row: Row): Promise<Outcome> {
    try {
      return await ("measure" in row ? this.#facts(row) : this.#load(row));
    } catch (error) {
      return { row, failure: error instanceof Error ? error.message : String(error) };
    }
  }

  #runsOf({ runs = Infinity }: Row): number {
    return Math.min(runs, this.#options.runs);
  }

  async #facts(row: FactRow): Promise<FactOutcome> {
    const runs: Facts[] = [];
    for (let run = 0; run < this.#runsOf(row); run += 1) runs.push(await row.measure(this.#stage, row.gateway ?? {}));
    return { row, runs, facts: medianOf(runs) };
  }

  async #load(row: LoadRow): Promise<LoadOutcome> {
    const runs: { figures: Figures; facts: Facts; result: LoadResult }[] = [];
    const ceilings: Ceilings[] = [];
    await using _cores = this.#options.given === undefined ? await this.#stage.coresBeside(scannerOf(row)) : undefined;
    for (let run = 0; run < this.#runsOf(row); run += 1) {
      ceilings.push(await this.#ceilingsOf(row, run));
      runs.push(await this.#loadOnce(row));
    }
    const figures = runs.map((run) => run.figures);
    const icap = ceilings.flatMap((one) => one.icap ?? []);
    const homeserver = ceilings.flatMap((one) => one.homeserver ?? []);
    return {
      row,
      runs: figures,
      figures: medianOf(figures),
      facts: medianOf(runs.map(({ facts }) => facts)),
      ceilings: {
        ...(homeserver.length === 0 ? {} : { homeserver: medianOf(homeserver) }),
        ...(icap.length === 0 ? {} : { icap: medianOf(icap.map((perSecond) => ({ perSecond }))).perSecond }),
      },
      errors: runs.reduce((sum, { result }) => sum + result.errors, 0),
      examples: [...new Set(runs.flatMap(({ result }) => result.examples))],
    };
  }

  async #loadOnce(row: LoadRow): Promise<{ figures: Figures; facts: Facts; result: LoadResult }> {
    const { given } = this.#options;
    if (given !== undefined) return this.#measure(row, given);
    await using started = await this.#stage.startGateways(row.gateway ?? {});
    const measured = await this.#measure(row, servedBy(started.gateways));
    if (measured.result.errors === 0) return measured;
    const warnings = await Promise.all(started.gateways.map((gateway) => gateway.warnings()));
    return { ...measured, result: { ...measured.result, examples: [...measured.result.examples, ...warnings.flat()] } };
  }

  async #measure(row: LoadRow, { urls, pids }: Served): Promise<{ figures: Figures; facts: Facts; result: LoadResult }> {
    const spec = await this.#spec(row, row.lastInstance === true ? urls.slice(-1) : urls);
    if (row.known === true) {
      const { result } = await measureLoad({ ...spec, targets: urls.slice(0, 1), until: { requests: row.media ?? 1 } }, []);
      if (result.errors > 0) throw new Error(`media could not be made known: ${result.examples.join("; ")}`);
    }
    if (row.warmed === true) await this.#warmUp(spec);
    const probes = await Promise.all((row.probes ?? []).map((kind) => this.#probe(kind, row)));
    let requests = Number.NaN;
    const ended = (): Promise<Facts[]> => Promise.all(probes.map((probe) => probe.end(requests)));
    try {
      const measured = await measureLoad(spec, pids, async () => void (await Promise.all(probes.map((probe) => probe.begin()))));
      ({ requests } = measured.result);
      return { ...measured, facts: Object.assign({}, ...(await ended())) as Facts };
    } catch (error) {
      await ended();
      throw error;
    }
  }

  async #warmUp(spec: LoadSpec): Promise<void> {
    const until = { warmUp: 0, time: this.#options.warmUp };
    if (until.time === 0) return;
    const { result } = await measureLoad({ ...spec, ...WARM_UP_LOAD, until }, []);
    if (result.errors > 0) throw new Error(`the gateway could not be warmed up: ${result.examples.join("; ")}`);
  }

  async #probe(kind: ProbeKind, row: LoadRow): Promise<Probe> {
    if (kind === "homeserver") return homeserverProbe(await this.#stage.homeserver());
    if (kind === "redis") return redisProbe(await this.#stage.redis());
    return scansProbe(await this.#stage.homeserver(), await this.#stage.scanner(scannerOf(row)));
  }

  async #spec(row: LoadRow, targets: readonly string[]): Promise<LoadSpec> {
    const { endpoint, size, media, sealed, connections } = row;
    return {
      targets,
      endpoint,
      size,
      series: randomBytes(4).toString("hex"),
      ...(media === undefined ? {} : { media }),
      ...(sealed === true ? { publicKey: await publicKeyOf(targets[0] ?? "") } : {}),
      connections,
      until: this.#until(row),
    };
  }

  #until({ requests }: LoadRow): LoadSpec["until"] {
    const { warmUp, duration } = this.#options;
    return requests === undefined ? { warmUp, time: duration } : { requests };
  }

  /** Verdicts are compared with the smallest media. */
  #ceilingsOf(row: LoadRow, run: number): Promise<Ceilings> {
    const { connections, requests, media } = row;
    const size = row.endpoint.startsWith("scan") ? TAIL_SIZE : row.size;
    const kinds = this.#options.given === undefined ? row.ceilings : row.ceilings.filter((kind) => kind === "homeserver");
    const name = JSON.stringify([kinds, row.endpoint === "upload", size, connections, requests, media !== undefined, scannerOf(row), run]);
    const ceilings = this.#ceilings.get(name) ?? this.#measureCeilings(kinds, { ...row, size });
    this.#ceilings.set(name, ceilings);
    return ceilings;
  }

  async #measureCeilings(kinds: readonly CeilingKind[], row: LoadRow): Promise<Ceilings> {
    const ceilings: { homeserver?: Figures; icap?: number } = {};
    if (kinds.includes("homeserver")) {
      const { sealed: _sealed, ...plain } = row;
      const { url } = await this.#stage.homeserver();
      const { figures, result } = await measureLoad(
        await this.#spec({ ...plain, endpoint: row.endpoint === "upload" ? "upload" : "download" }, [url]),
        [],
      );
      if (result.errors > 0) throw new Error(`the homeserver of the benchmark fails: ${result.examples.join("; ")}`);
      ceilings.homeserver = figures;
    }
    if (kinds.includes("icap")) {
      const { url } = await this.#stage.scanner(scannerOf(row));
      const { warmUp, duration } = this.#options;
      ceilings.icap = await measureRawIcap({ url, size: row.size, connections: row.connections, warmUp, duration });
    }
    return ceilings;
  }
}

export function scannerOf({ gateway }: LoadRow): Scanner {
  return gateway?.scanner ?? "instant";
}

export function servedBy(gateways: readonly Gateway[]): Served {
  return { urls: gateways.map(({ url }) => url), pids: gateways.map(({ pid }) => pid) };
}

async function publicKeyOf(url: string): Promise<string> {
  const response = await fetch(`${url}/public_key`);
  const { public_key: key } = (await response.json()) as { readonly public_key?: unknown };
  if (typeof key !== "string") throw new Error("there is no public key");
  return key;
}
