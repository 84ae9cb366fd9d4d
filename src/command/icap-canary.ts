/** `icap canary URL`: what a service catches, and up to which size. */
import type { IcapService, IcapServiceOptions } from "../../icap/index.ts";
import { parseSize } from "../config/units.ts";
import { complaintAbout } from "../scan/canary-advice.ts";
import { CANARY_KINDS, type CanaryKind, buildCanary } from "../scan/canary-samples.ts";
import { MAX_CANARY_SIZE, MIN_CANARY_SIZE, largeCanary } from "../scan/large-canary.ts";
import { sizeAdvice } from "../scan/size-advice.ts";
import { type Attempt, searchSize } from "../scan/size-search.ts";
import { type Sample, askAbout, canarySample, harmlessSample } from "./canary-question.ts";
import { type CanaryFindings, CanaryTable, type ProvenSize, type Trial, canaryJson } from "./canary-report.ts";
import { UsageError, parseCommandLine } from "./command-line.ts";
import { failureOf } from "./failure.ts";
import { jsonLine, printable } from "./printable.ts";
import { Progress } from "./progress.ts";
import { formatSize } from "./quantities.ts";
import { SERVICE_OPTIONS, SERVICE_USAGE, chooseService, openService } from "./service-options.ts";

const USAGE = `Usage: matrix-icap-gateway icap canary URL [options]

Sends the EICAR test file in several wrappings, and one harmless file; shows which of them the service catches, up to which size it scans, and
what to set where it misses something. The samples are not dangerous, but the service may raise an alarm.

  --canary KIND        sends this one alone: ${CANARY_KINDS.join(", ")}; may be repeated
  --size SIZE          up to which size it should scan; scan.max_file_size of the configuration, else 200MiB; 0 leaves that out
${SERVICE_USAGE}
Exit status: 0 when it catches all up to that size, 1 when it misses any (or calls the harmless file anything but clean), else 2 when an
answer is missing or the command line is wrong.
`;

const DEFAULT_SIZE = 200 * 1024 * 1024;

/** Runs the command. @returns the exit status @throws UsageError; ConfigError; the signal's reason. */
export async function icapCanary(args: readonly string[], signal: AbortSignal): Promise<number> {
  const options = { ...SERVICE_OPTIONS, size: { type: "string" }, canary: { type: "string", multiple: true } } as const;
  const { values, positionals } = parseCommandLine(args, options);
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const [{ replicas, timeout, maxFileSize }, rest] = await chooseService(values, positionals);
  if (rest.length > 0) throw new UsageError(`unknown words: ${rest.map(printable).join(" ")}`);
  const kinds = kindsFrom(values.canary);
  const wanted = sizeFrom(values.size) ?? Math.min(Math.max(maxFileSize ?? DEFAULT_SIZE, MIN_CANARY_SIZE), MAX_CANARY_SIZE);
  const statuses: number[] = [];
  for (const [index, replica] of replicas.entries()) {
    if (index > 0 && values.json !== true) process.stdout.write("\n");
    statuses.push(await examine(replica, { kinds, wanted, timeout, json: values.json ?? false, signal }));
  }
  return statuses.includes(1) ? 1 : Math.max(...statuses);
}

function kindsFrom(names: readonly string[] | undefined): readonly CanaryKind[] {
  if (names === undefined) return CANARY_KINDS;
  const unknown = names.find((name) => !CANARY_KINDS.some((kind) => kind === name));
  if (unknown !== undefined) throw new UsageError(`--canary must be one of ${CANARY_KINDS.join(", ")}`);
  return CANARY_KINDS.filter((kind) => names.includes(kind));
}

function sizeFrom(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const size = parseSize(text);
  if (size === 0) return 0;
  if (size === undefined || size < MIN_CANARY_SIZE || size > MAX_CANARY_SIZE) {
    throw new UsageError(
      `--size must be 0 or a size from ${formatSize(MIN_CANARY_SIZE)} to ${formatSize(MAX_CANARY_SIZE)}, such as 200MiB`,
    );
  }
  return size;
}

interface Examination {
  readonly kinds: readonly CanaryKind[];
  /** Bytes; 0: no matter. */
  readonly wanted: number;
  readonly timeout: number;
  readonly json: boolean;
  readonly signal: AbortSignal;
}

/** @returns the exit status */
async function examine(replica: IcapServiceOptions, { kinds, wanted, timeout, json, signal }: Examination): Promise<number> {
  await using service = openService(replica);
  const table = json ? undefined : new CanaryTable();
  const tell = ({ code, why }: { readonly code: string; readonly why: string }): number => {
    if (json) process.stdout.write(jsonLine({ url: service.url, error: { code, why } }));
    else process.stderr.write(`${printable(`${service.url}: ${why}`)}\n`);
    return 2;
  };
  try {
    await service.options(AbortSignal.any([signal, AbortSignal.timeout(timeout)]));
  } catch (error) {
    signal.throwIfAborted();
    return tell(failureOf(error, timeout));
  }

  table?.begin(service.url);
  const trials: Trial[] = [];
  const run = async (kind: Trial["sample"], sample: Sample): Promise<Trial> => {
    const trial = await tryOut(kind, sample, service, timeout, signal);
    trials.push(trial);
    table?.row(trial);
    return trial;
  };
  await run("harmless", harmlessSample());
  for (const kind of kinds) {
    if (isGone(trials)) break;
    await run(kind, canarySample(kind));
  }
  // A scanner that does not look into a small zip says nothing by what it says of large ones.
  const looksIntoZips = !trials.some(({ sample, result }) => (sample === "plain" || sample === "zip") && result !== "passed");
  const size = wanted > 0 && looksIntoZips && !isGone(trials) ? await findSize(wanted, (sample) => run("large", sample)) : undefined;

  const tags = [...new Set(trials.flatMap(({ answer }) => ("tag" in answer && answer.tag !== undefined ? [answer.tag] : [])))];
  const advice = [...new Set(trials.flatMap((trial) => trial.advice ?? []))];
  if (tags.length > 1) advice.push("its ISTag changed in the meantime: some of these answers may be of other signatures than the others");
  if (size !== undefined && size.proven < wanted)
    advice.push(sizeAdvice(size.proven, wanted, size.complete ? undefined : "not every canary was answered"));
  const findings: CanaryFindings = { url: service.url, tags, trials, size, advice };
  if (json) process.stdout.write(canaryJson(findings));
  else table?.end(findings);
  if (trials.some(({ result }) => result === "failed")) return 1;
  return trials.some(({ result }) => result === "undecided") ? 2 : 0;
}

/** It takes no connection any more: whatever else is sent, nobody will answer. */
function isGone(trials: readonly Trial[]): boolean {
  const answer = trials.at(-1)?.answer;
  return answer?.outcome === "unanswered" && answer.code === "connect_failed";
}

async function tryOut(kind: Trial["sample"], sample: Sample, service: IcapService, timeout: number, signal: AbortSignal): Promise<Trial> {
  const progress = new Progress(sample.size);
  progress.label(kind);
  const counted: Sample = { ...sample, open: progress.count(() => sample.open()) };
  try {
    const answer = await askAbout(counted, service, timeout, signal);
    const trial = { sample: kind, size: sample.size, answer };
    if (answer.outcome === "failed" || answer.outcome === "unanswered") return { ...trial, result: "undecided", advice: undefined };
    if (kind === "harmless") {
      if (answer.outcome === "clean") return { ...trial, result: "passed", advice: undefined };
      return {
        ...trial,
        result: "failed",
        advice: `it answered "${answer.outcome}" to a harmless text file, so its verdicts mean nothing`,
      };
    }
    if (kind === "large") return { ...trial, result: answer.outcome === "infected" ? "passed" : "failed", advice: undefined };
    const advice = complaintAbout(kind, answer.outcome);
    return { ...trial, result: advice === undefined ? "passed" : "failed", advice };
  } finally {
    progress.clear();
  }
}

async function findSize(wanted: number, run: (sample: Sample) => Promise<Trial>): Promise<ProvenSize> {
  const found = await searchSize(wanted, async (size): Promise<Attempt> => {
    const canary = largeCanary(size);
    const { answer } = await run({ size, type: buildCanary("zip").type, open: () => canary.open() });
    if (answer.outcome === "infected" || answer.outcome === "failed" || answer.outcome === "unanswered") return answer.outcome;
    return "acquitted";
  });
  return { wanted, proven: found.caught, complete: found.complete };
}
