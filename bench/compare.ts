/**
 * `npm run bench:compare -- --only cold-10k before=../before after=. 'pool=.::--v8-pool-size=2'`: builds, or flags of Node, side by side. docs/performance.md
 * says why. Linux only.
 */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { table } from "../quickstart/table.ts";
import { UsageError, chosen, explaining, namesIn, numberOf, orUsageError } from "./command-line.ts";
import { type Figures, medianOf } from "./figures.ts";
import type { Gateway } from "./gateway.ts";
import { type Release, releaseIn } from "./release.ts";
import type { LoadRow } from "./row.ts";
import { isFailure, progressLine, rounded } from "./report.ts";
import { GROUPS } from "./rows/index.ts";
import { type RunOptions, Runner, scannerOf, servedBy } from "./run-row.ts";
import { Stage } from "./stage.ts";

const USAGE = `npm run bench:compare -- --only NAME[,NAME] [options] NAME=DIRECTORY[::NODE-FLAGS] …

  Each DIRECTORY holds a tree that is built (npm run build). Rows are those of npm run bench.

  --rounds N             turns of each (8)
  --seconds N            of each turn (1.5); rows with a number of requests take what those take
  --warm-up N            seconds, once for each gateway (8)
`;

/** Milliseconds of each turn that don't count: connections are made, and media made known that is to be known. */
const SETTLING = 400;

const HEADING = ["", "requests/s", "CPU ms/request", "p50 ms", "first byte ms", "peak MB", "seconds"] as const;

interface Variant {
  readonly name: string;
  readonly release: Release;
}

await explaining(USAGE, () => compare(process.argv.slice(2)));

async function compare(args: readonly string[]): Promise<void> {
  const { rows, variants, rounds, duration, warmUp } = parsed(args);
  await using stage = new Stage({ homeserverPort: 0 });
  for (const row of rows) {
    const turns = new Map<Variant, Figures[]>(variants.map((variant) => [variant, []]));
    await using _cores = await stage.coresBeside(scannerOf(row));
    // A burst is for gateways that have just been started.
    await using kept = row.requests === undefined ? await startAll(stage, row, variants) : undefined;
    for (const gateway of kept?.gateways.values() ?? []) await turn(stage, row, gateway, { duration, warmUp });
    for (let round = 0; round < rounds; round += 1) {
      for (const variant of round % 2 === 0 ? variants : variants.toReversed()) {
        await using fresh = kept === undefined ? await startAll(stage, row, [variant]) : undefined;
        const gateway = (fresh ?? kept)?.gateways.get(variant);
        if (gateway !== undefined)
          turns.get(variant)?.push(await turn(stage, row, gateway, { duration, warmUp: kept === undefined ? warmUp : SETTLING }));
      }
    }
    const lines = [...turns].map(([{ name }, figures]) => cells(name, figures));
    process.stdout.write(`${row.name}\n\n${table(HEADING, lines)}\n\n`);
  }
}

interface Started extends AsyncDisposable {
  readonly gateways: ReadonlyMap<Variant, readonly Gateway[]>;
}

async function startAll(stage: Stage, row: LoadRow, variants: readonly Variant[]): Promise<Started> {
  const parts = new AsyncDisposableStack();
  const gateways = new Map<Variant, readonly Gateway[]>();
  try {
    for (const variant of variants)
      gateways.set(variant, parts.use(await stage.startGateways(row.gateway ?? {}, variant.release)).gateways);
  } catch (error) {
    await parts.disposeAsync();
    throw error;
  }
  return { gateways, [Symbol.asyncDispose]: () => parts.disposeAsync() };
}

/** @throws Error when an answer was wrong: then no figure is worth anything */
async function turn(
  stage: Stage,
  row: LoadRow,
  gateways: readonly Gateway[],
  time: Pick<RunOptions, "duration" | "warmUp">,
): Promise<Figures> {
  const runner = new Runner(stage, { ...time, runs: 1, given: servedBy(gateways) });
  const outcome = await runner.run({ ...row, ceilings: [], probes: [] });
  if (isFailure(outcome) || !("figures" in outcome)) throw new Error(progressLine(outcome));
  return outcome.figures;
}

function cells(name: string, turns: readonly Figures[]): (string | number)[] {
  const { requestsPerSecond, cpuPerRequest, p50, firstByteP50, peakMemory, seconds } = medianOf(turns);
  return [name, ...[requestsPerSecond, cpuPerRequest, p50, firstByteP50, peakMemory / 1e6, seconds].map(rounded)];
}

interface Comparison {
  readonly rows: readonly LoadRow[];
  readonly variants: readonly Variant[];
  readonly rounds: number;
  /** Milliseconds. */
  readonly duration: number;
  /** Milliseconds. */
  readonly warmUp: number;
}

/** @throws UsageError */
function parsed(args: readonly string[]): Comparison {
  const { values, positionals } = orUsageError(() =>
    parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        only: { type: "string" },
        rounds: { type: "string", default: "8" },
        seconds: { type: "string", default: "1.5" },
        "warm-up": { type: "string", default: "8" },
      },
    }),
  );
  const { only } = values;
  if (only === undefined) throw new UsageError("--only must name rows");
  const rows = chosen(GROUPS, { only: namesIn(only), baseUrl: undefined })
    .flatMap((group) => group.rows)
    .map((row) => {
      if ("measure" in row) throw new UsageError(`${row.name} is no load of requests`);
      return row;
    });
  if (positionals.length < 2) throw new UsageError("name at least two builds to compare");
  const variants = positionals.map(variantOf);
  return {
    rows,
    variants,
    rounds: numberOf(values.rounds, "--rounds", 1, 1000),
    duration: numberOf(values.seconds, "--seconds", 0.1, 3600, { fraction: true }) * 1000,
    warmUp: numberOf(values["warm-up"], "--warm-up", 0, 3600, { fraction: true }) * 1000,
  };
}

function variantOf(text: string): Variant {
  const { name, directory, flags } = /^(?<name>[^=]+)=(?<directory>.+?)(?:::(?<flags>.*))?$/.exec(text)?.groups ?? {};
  if (name === undefined || directory === undefined) throw new UsageError(`${text} is not NAME=DIRECTORY`);
  const nodeFlags = flags?.split(" ").filter((flag) => flag !== "");
  const release = releaseIn(resolve(directory), nodeFlags);
  if (!existsSync(release.main)) throw new UsageError(`${release.main} is not there: is the tree built?`);
  return { name, release };
}
