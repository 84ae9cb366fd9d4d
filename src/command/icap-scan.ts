/** `icap scan URL FILE…`: has files scanned, each streamed from where it lies. */
import { stat } from "node:fs/promises";
import type { IcapService, Verdict } from "../../icap/index.ts";
import { buildCanary } from "../scan/canary-samples.ts";
import { formatSize } from "../scan/format-size.ts";
import { type Asked, askAbout, sampleOf } from "./canary-question.ts";
import { UsageError, parseCommandLine } from "./command-line.ts";
import { type Failure, failureOf } from "./failure.ts";
import { formatTime } from "./format-time.ts";
import { jsonLine, printable } from "./printable.ts";
import { Progress } from "./progress.ts";
import { FileError, ScannedFile } from "./scanned-file.ts";
import { seemsWithoutEngine } from "./service-advice.ts";
import { type ChosenService, SERVICE_OPTIONS, SERVICE_USAGE, chooseService, openService } from "./service-options.ts";
import { describeFor, typeOfPath } from "./subject.ts";
import { type Cell, Table, widthOf } from "./table.ts";

const USAGE = `Usage: matrix-icap-gateway icap scan URL FILE… [options]

Has each file scanned, and writes a line for each as soon as its verdict is there. "clean" is what the service says; \`icap canary\` shows what
that is worth.

  --jobs N             files that are scanned at the same time; 1 by default
${SERVICE_USAGE}
Exit status: 0 when all files are clean, 1 when any is infected, else 2: when any could not be scanned (no verdict, unscannable, modified,
not readable), or the command line is wrong. With --json, each file is one line: file, size, verdict, threat or why, milliseconds.
`;

const MAX_JOBS = 64;
/** Characters of the table's first column; longer names push the rest. */
const MAX_NAME_WIDTH = 60;

interface Result {
  readonly file: string;
  /** Bytes; undefined for a file that could not be opened. */
  readonly size: number | undefined;
  readonly verdict: Verdict["outcome"];
  readonly threat?: string;
  readonly why?: string;
  /** Set when there was no answer: an IcapErrorCode, or what is wrong with the file. */
  readonly code?: string;
  readonly tag?: string;
  readonly milliseconds: number;
}

/** Runs the command. @returns the exit status @throws UsageError; ConfigError; the signal's reason. */
export async function icapScan(args: readonly string[], signal: AbortSignal): Promise<number> {
  const { values, positionals } = parseCommandLine(args, { ...SERVICE_OPTIONS, jobs: { type: "string" } });
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const jobs = jobsFrom(values.jobs);
  const [chosen, files] = await chooseService(values, positionals);
  if (files.length === 0) throw new UsageError("no file to scan is named");
  if (files.includes("-"))
    throw new UsageError("standard input can't be scanned: its size is not known beforehand (a file of that name is ./-)");

  const service = await firstThatAnswers(chosen, jobs, signal);
  await using _ = "failure" in service ? undefined : service;
  const progress = new Progress(await sizeOf(files));
  const report = values.json ? reportJson : reportTable(files);
  const scan: Scan = { service, chosen, progress, signal };
  const outcomes = new Set<Result["verdict"]>();
  const queue = files.values();
  const work = async (): Promise<void> => {
    for (const file of queue) {
      const result = await scanFile(file, scan);
      outcomes.add(result.verdict);
      progress.clear();
      report(result);
    }
  };
  try {
    await Promise.all(Array.from({ length: jobs }, work));
  } finally {
    progress.clear();
  }
  if (outcomes.has("infected")) return 1;
  return [...outcomes].every((outcome) => outcome === "clean") ? 0 : 2;
}

function jobsFrom(text: string | undefined): number {
  if (text === undefined) return 1;
  const jobs = /^\d{1,3}$/.test(text) ? Number(text) : 0;
  if (jobs < 1 || jobs > MAX_JOBS) throw new UsageError(`--jobs must be a number from 1 to ${MAX_JOBS}`);
  return jobs;
}

/** The first replica that answers OPTIONS, and has an engine; or why none does. */
async function firstThatAnswers(
  { replicas, timeout, configured }: ChosenService,
  jobs: number,
  signal: AbortSignal,
): Promise<IcapService | { readonly failure: Failure }> {
  const describeType = configured?.describeType;
  const failures: Failure[] = [];
  for (const options of replicas) {
    const service = openService({ ...options, maxConnections: jobs, reservedConnections: 0 });
    try {
      const info = await service.options(AbortSignal.any([signal, AbortSignal.timeout(timeout)]));
      if (!seemsWithoutEngine(info) || (await catchesEicar({ service, describeType, timeout, signal }))) return service;
      await service[Symbol.asyncDispose]();
      failures.push(WITHOUT_ENGINE);
    } catch (error) {
      await service[Symbol.asyncDispose]();
      signal.throwIfAborted();
      failures.push(failureOf(error, timeout));
    }
  }
  const codes = new Set(failures.map(({ code }) => code));
  return { failure: { code: [...codes][0] ?? "unavailable", why: failures.map(({ why }) => why).join("; ") } };
}

const WITHOUT_ENGINE: Failure = { code: "no_engine", why: "there is no antivirus engine behind the service: it passes EICAR" };

async function catchesEicar(asked: Asked): Promise<boolean> {
  const { outcome } = await askAbout(sampleOf(buildCanary("plain")), asked);
  return outcome === "infected";
}

async function sizeOf(files: readonly string[]): Promise<number> {
  let sum = 0;
  for (const file of files) {
    const stats = await stat(file).catch(() => undefined);
    if (stats?.isFile() === true) sum += stats.size;
  }
  return sum;
}

interface Scan {
  readonly service: IcapService | { readonly failure: Failure };
  readonly chosen: ChosenService;
  readonly progress: Progress;
  readonly signal: AbortSignal;
}

/** Whatever is wrong with the file or the answer is a result; only the user's own signal is thrown. */
async function scanFile(file: string, { service, chosen, progress, signal }: Scan): Promise<Result> {
  const { timeout, configured } = chosen;
  const begun = performance.now();
  const result = (rest: Omit<Result, "file" | "milliseconds">): Result => ({ file, ...rest, milliseconds: performance.now() - begun });
  progress.label(printable(file));
  let size: number | undefined;
  try {
    await using opened = await ScannedFile.open(file);
    ({ size } = opened);
    if ("failure" in service) return result({ size, verdict: "error", ...service.failure });
    const body = progress.count(() => opened.read());
    const limited = AbortSignal.any([signal, AbortSignal.timeout(timeout)]);
    const described = describeFor(service, configured?.describeType, typeOfPath(file));
    const { verdict, isTag } = await service.scan({ ...described, body, size, signal: limited });
    // What was found in it was there, whatever the file holds by now.
    if (verdict.outcome !== "infected") await opened.checkUnchanged();
    const tag = isTag === undefined ? {} : { tag: isTag };
    switch (verdict.outcome) {
      case "clean":
        return result({ size, verdict: "clean", ...tag });
      case "infected":
        return result({ size, verdict: "infected", threat: verdict.threat, ...tag });
      case "modified":
      case "unscannable":
      case "error":
        return result({ size, verdict: verdict.outcome, why: verdict.why, ...tag });
    }
  } catch (error) {
    signal.throwIfAborted();
    const { code, why } = error instanceof FileError ? { code: error.code, why: error.message } : failureOf(error, timeout);
    return result({ size, verdict: "error", code, why });
  }
}

const STYLES = { clean: "green", infected: "red", modified: "yellow", unscannable: "yellow", error: "yellow" } as const;

function reportTable(files: readonly string[]): (result: Result) => void {
  const table = new Table(
    [
      { title: "FILE", width: widthOf(files.map(printable), MAX_NAME_WIDTH) },
      { title: "SIZE", width: 9, align: "right" },
      { title: "VERDICT", width: 11 },
      { title: "TIME", width: 7, align: "right" },
      { title: "THREAT OR REASON" },
    ],
    process.stdout,
  );
  table.heading();
  return ({ file, size, verdict, threat, why, milliseconds }) => {
    const cells: readonly Cell[] = [
      printable(file),
      size === undefined ? "–" : formatSize(size),
      { text: verdict, style: STYLES[verdict] },
      formatTime(milliseconds),
      printable(threat ?? why ?? ""),
    ];
    table.row(cells);
  };
}

function reportJson(result: Result): void {
  process.stdout.write(jsonLine({ ...result, milliseconds: Math.round(result.milliseconds) }));
}
