/** `icap canary URL`: what a service catches, and up to which size. */
import type { IcapServiceOptions } from "../../icap/index.ts";
import { parseSize } from "../config/units.ts";
import { CANARY_KINDS, type CanaryKind } from "../scan/canary-samples.ts";
import { formatSize } from "../scan/format-size.ts";
import { MAX_CANARY_SIZE, MIN_CANARY_SIZE } from "../scan/large-canary.ts";
import { type Plan, examine } from "./canary-examination.ts";
import { type CanaryFindings, CanaryTable, canaryJson, isGood } from "./canary-report.ts";
import { UsageError, parseCommandLine } from "./command-line.ts";
import { failureOf } from "./failure.ts";
import { jsonLine, printable } from "./printable.ts";
import { type ConfiguredService, SERVICE_OPTIONS, SERVICE_USAGE, chooseService, openService } from "./service-options.ts";

const USAGE = `Usage: matrix-icap-gateway icap canary URL [options]

Sends the EICAR test file in several wrappings, and one harmless file; shows which of them the service catches, up to which size it scans, and
what to set where it misses something. The samples are not dangerous, but the service may raise an alarm.

  --canary KIND        sends this one alone, and it must be caught: ${CANARY_KINDS.join(", ")};
                       may be repeated
  --size SIZE          up to which size it should scan, 0 leaves that out; 200MiB by default, with -c scan.max_file_size where prove_size is on
${SERVICE_USAGE}
Exit status: 0 when it catches all that it must, up to that size; 1 when it misses any (or calls the harmless file anything but clean); else
2 when an answer is missing or the command line is wrong. It must catch all that is sent; with -c, what the service's canary names.
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
  const [{ replicas, timeout, configured }, rest] = await chooseService(values, positionals);
  if (rest.length > 0) throw new UsageError(`unknown words: ${rest.map(printable).join(" ")}`);
  const plan = { ...canariesFrom(values.canary, configured), size: sizeFrom(values.size, configured) };
  const statuses: number[] = [];
  for (const [index, replica] of replicas.entries()) {
    if (index > 0 && values.json !== true) process.stdout.write("\n");
    statuses.push(await run(replica, plan, { describeType: configured?.describeType, timeout, json: values.json ?? false, signal }));
  }
  return statuses.includes(1) ? 1 : Math.max(...statuses);
}

function canariesFrom(names: readonly string[] | undefined, configured: ConfiguredService | undefined): Pick<Plan, "kinds" | "required"> {
  if (names === undefined && configured !== undefined) {
    const { canaries } = configured;
    // As in the gateway: what looks for no viruses is not asked about any.
    return canaries.length === 0 ? { kinds: [], required: [] } : { kinds: CANARY_KINDS, required: ["harmless", ...canaries] };
  }
  const kinds = names === undefined ? CANARY_KINDS : kindsFrom(names);
  return { kinds, required: ["harmless", ...kinds] };
}

function kindsFrom(names: readonly string[]): readonly CanaryKind[] {
  const unknown = names.find((name) => !CANARY_KINDS.some((kind) => kind === name));
  if (unknown !== undefined) throw new UsageError(`--canary must be one of ${CANARY_KINDS.join(", ")}`);
  return CANARY_KINDS.filter((kind) => names.includes(kind));
}

function sizeFrom(text: string | undefined, configured: ConfiguredService | undefined): number {
  if (text === undefined) {
    const size = configured === undefined ? DEFAULT_SIZE : configured.size;
    return size === 0 ? 0 : Math.min(Math.max(size, MIN_CANARY_SIZE), MAX_CANARY_SIZE);
  }
  const size = parseSize(text);
  if (size === 0) return 0;
  if (size === undefined || size < MIN_CANARY_SIZE || size > MAX_CANARY_SIZE) {
    throw new UsageError(
      `--size must be 0 or a size from ${formatSize(MIN_CANARY_SIZE)} to ${formatSize(MAX_CANARY_SIZE)}, such as 200MiB`,
    );
  }
  return size;
}

interface How {
  readonly describeType: boolean | undefined;
  readonly timeout: number;
  readonly json: boolean;
  readonly signal: AbortSignal;
}

/** @returns the exit status */
async function run(replica: IcapServiceOptions, plan: Plan, { describeType, timeout, json, signal }: How): Promise<number> {
  await using service = openService(replica);
  try {
    await service.options(AbortSignal.any([signal, AbortSignal.timeout(timeout)]));
  } catch (error) {
    signal.throwIfAborted();
    const { code, why } = failureOf(error, timeout);
    if (json) process.stdout.write(jsonLine({ url: service.url, error: { code, why } }));
    else process.stderr.write(`${printable(`${service.url}: ${why}`)}\n`);
    return 2;
  }
  const table = json ? undefined : new CanaryTable();
  table?.begin(service.url);
  const findings = await examine(plan, { service, describeType, timeout, signal }, (trial) => table?.row(trial));
  if (json) process.stdout.write(canaryJson(findings));
  else table?.end(findings);
  return statusOf(findings);
}

function statusOf({ trials, size }: CanaryFindings): number {
  const failed = trials.filter(({ required, result }) => required && !isGood(result));
  if (size?.fallsShort === true || failed.some(({ result }) => result !== "unknown")) return 1;
  const answered = failed.length === 0 && (size?.complete ?? true) && trials.every(({ answer }) => answer.outcome !== "unanswered");
  return answered ? 0 : 2;
}
