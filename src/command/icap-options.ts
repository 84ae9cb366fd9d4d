/** `icap options URL`: what an ICAP service says of itself. */
import { IcapError, type IcapMethod, type IcapServiceOptions, type ServiceInfo } from "../../icap/index.ts";
import { UsageError, parseCommandLine } from "./command-line.ts";
import { failureOf } from "./failure.ts";
import { formatTime } from "./format-time.ts";
import { jsonLine, printable } from "./printable.ts";
import { serviceAdvice } from "./service-advice.ts";
import { type ConfiguredService, SERVICE_OPTIONS, SERVICE_USAGE, chooseService, openService } from "./service-options.ts";
import { Table, widthOf } from "./table.ts";
import { type TlsFacts, tlsFacts } from "./tls-facts.ts";

const USAGE = `Usage: matrix-icap-gateway icap options URL [options]

Shows what an ICAP service answers to OPTIONS, how long that takes, how its TLS is set, and what you may want to know or set.

${SERVICE_USAGE}
Exit status: 0 when it answers, 2 when it does not or the command line is wrong.
`;

interface Answer {
  readonly url: string;
  readonly info: ServiceInfo;
  /** Of OPTIONS over a connection that was made before; milliseconds. */
  readonly roundTrip: number;
  readonly otherMethod?: IcapMethod;
  readonly tls: TlsFacts | undefined;
  readonly advice: readonly string[];
}

/** Runs the command. @returns the exit status @throws UsageError; ConfigError; the signal's reason. */
export async function icapOptions(args: readonly string[], signal: AbortSignal): Promise<number> {
  const { values, positionals } = parseCommandLine(args, SERVICE_OPTIONS);
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const [{ replicas, timeout, configured }, rest] = await chooseService(values, positionals);
  if (rest.length > 0) throw new UsageError(`unknown words: ${rest.map(printable).join(" ")}`);
  let status = 0;
  for (const [index, replica] of replicas.entries()) {
    if (index > 0 && values.json !== true) process.stdout.write("\n");
    const limited = AbortSignal.any([signal, AbortSignal.timeout(timeout)]);
    try {
      const answer = await ask(replica, configured?.context, limited);
      if (values.json) process.stdout.write(jsonLine(asJson(answer)));
      else show(answer);
    } catch (error) {
      signal.throwIfAborted();
      const failure = failureOf(error, timeout);
      if (values.json) process.stdout.write(jsonLine({ url: replica.url, error: failure }));
      else process.stderr.write(`${printable(`${replica.url}: ${failure.why}`)}\n`);
      status = 2;
    }
  }
  return status;
}

type Context = ConfiguredService["context"] | undefined;

async function ask(replica: IcapServiceOptions, context: Context, signal: AbortSignal): Promise<Answer> {
  try {
    return await askFor(replica, context, signal);
  } catch (error) {
    if (!(error instanceof IcapError) || error.code !== "wrong_service" || replica.method !== undefined) throw error;
    try {
      return await askFor({ ...replica, method: "REQMOD" }, context, signal, "REQMOD");
    } catch {
      throw error;
    }
  }
}

async function askFor(replica: IcapServiceOptions, context: Context, signal: AbortSignal, otherMethod?: IcapMethod): Promise<Answer> {
  await using service = openService(replica);
  // The first answer pays for the connection, so the second one is timed.
  await service.options(signal);
  const begun = performance.now();
  const info = await service.options(signal, { fresh: true });
  const roundTrip = performance.now() - begun;
  const { url } = service;
  const tls = /^icaps:/i.test(url) ? await tlsFacts(url, replica.tls ?? {}, signal) : undefined;
  const facts = { url, info, tls, context, ...(otherMethod === undefined ? {} : { otherMethod }) };
  return { ...facts, roundTrip, advice: serviceAdvice(facts, Date.now()) };
}

function show({ url, info, roundTrip, tls, advice }: Answer): void {
  const rows: [string, string][] = [
    ["URL", url],
    ["Service", info.service ?? "–"],
    ["ISTag", info.isTag ?? "–"],
    ["Methods", list(info.methods)],
    ["Preview", info.preview === undefined ? "none" : `${info.preview} bytes`],
    ["Allow: 204", info.allow204 ? "yes" : "no"],
    ["Max-Connections", info.maxConnections === undefined ? "not said" : String(info.maxConnections)],
    ["Options-TTL", `${info.optionsTtl} s`],
    ["X-Include", list(info.include)],
    ["Transfer-Preview", list(info.transfer.preview)],
    ["Transfer-Ignore", list(info.transfer.ignore)],
    ["Transfer-Complete", list(info.transfer.complete)],
    ["Round trip", formatTime(roundTrip)],
  ];
  if (tls !== undefined) {
    rows.push(
      ["TLS", `${tls.protocol}, ${tls.cipher}`],
      ["Certificate", `${tls.subject}, issued by ${tls.issuer}, until ${dateOf(tls.validUntil)}`],
    );
  }
  const table = new Table([{ title: "", width: widthOf(rows.map(([name]) => name)) }, { title: "" }], process.stdout);
  for (const [name, value] of rows) table.row([{ text: name, style: "bold" }, printable(value)]);
  for (const [index, text] of advice.entries()) process.stdout.write(`${index === 0 ? "\n" : ""}- ${printable(text)}\n`);
}

function list(names: readonly string[]): string {
  return names.length === 0 ? "–" : names.join(", ");
}

function asJson({ url, info, roundTrip, otherMethod, tls, advice }: Answer): unknown {
  return {
    url,
    service: info.service,
    tag: info.isTag,
    methods: info.methods,
    preview: info.preview,
    allow204: info.allow204,
    maxConnections: info.maxConnections,
    optionsTtl: info.optionsTtl,
    include: info.include,
    transfer: info.transfer,
    roundTripMilliseconds: Math.round(roundTrip * 1000) / 1000,
    ...(otherMethod === undefined ? {} : { method: otherMethod }),
    ...(tls === undefined ? {} : { tls: { ...tls, validUntil: dateOf(tls.validUntil) } }),
    advice,
  };
}

function dateOf(date: Date): string {
  return Number.isNaN(date.getTime()) ? "an unknown date" : date.toISOString().slice(0, 10);
}
