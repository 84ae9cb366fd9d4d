/** `matrix-icap-gateway verdict …`: what operators decide on single files, and what is known of them. */
import { createHash } from "node:crypto";
import { isIP } from "node:net";
import type { ParseArgsOptionsConfig } from "node:util";
import { type Config, loadConfig } from "../config/load.ts";
import { parseDuration } from "../config/units.ts";
import { codeOf } from "../errors.ts";
import { UsageError, parseCommandLine } from "./command-line.ts";
import { jsonLine, printable } from "./printable.ts";
import { FileError, ScannedFile } from "./scanned-file.ts";
import { listRows, knowledgeJson, overrideJson, show, type Knowledge } from "./verdict-report.ts";
import type { Asker, KeptOverride, OverrideKind, VerdictTools } from "./verdict-tools.ts";

const USAGE = `Usage:
  matrix-icap-gateway verdict block SHA256 -c FILE    blocks this content, whatever scanners say
  matrix-icap-gateway verdict allow SHA256 -c FILE    lets it pass, whatever scanners say, unless it is blocked
  matrix-icap-gateway verdict forget SHA256 -c FILE   ends its block or allow, and has it scanned anew
  matrix-icap-gateway verdict show SHA256 -c FILE     shows what is known of it
  matrix-icap-gateway verdict list -c FILE            shows all that is blocked, allowed or forgotten

SHA256 is that of the file as a reader sees it, decrypted, in hex; --file computes it. Gateways that run know within a second.

  -c, --config FILE    the gateway's configuration: it says where overrides are kept, and the secret that they are sealed with
  --file PATH          the file itself, in place of SHA256
  --reason TEXT        why, in up to 200 characters; the log shows it
  --user USER          with show, where scanners are told who asks: the verdict for this Matrix user
  --client-ip ADDRESS  with show: the verdict for this client's address
  --expires DURATION   for how long it is blocked or allowed, such as 12h, 30d or 1 year; for ever, without it
  --json               JSON, one value a line
  -h, --help           shows this

Exit status: 0 when it is done, 1 when show knows nothing, 2 when it could not be done.
`;

const OPTIONS = {
  config: { type: "string", short: "c" },
  file: { type: "string" },
  reason: { type: "string" },
  expires: { type: "string" },
  user: { type: "string" },
  "client-ip": { type: "string" },
  json: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const satisfies ParseArgsOptionsConfig;

const DONE: Readonly<Record<OverrideKind, string>> = { block: "blocked", allow: "allowed", forget: "forgotten" };
const COMMANDS = ["block", "allow", "forget", "show", "list"] as const;
/** UTF-16 code units, as those who keep it count. */
const MAX_REASON = 200;
/** Milliseconds: a hundred years. */
const LONGEST = 100 * 365 * 24 * 60 * 60 * 1000;

/**
 * Runs the command.
 * @param open what the configuration leads to; called once, closed when the command is done
 * @returns the exit status
 * @throws UsageError; ConfigError.
 */
export async function verdict(args: readonly string[], open: (config: Config) => Promise<VerdictTools>): Promise<number> {
  const { values, positionals } = parseCommandLine(args, OPTIONS);
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const task = await readTask(values, positionals);
  const { config } = await loadConfig(task.config);
  try {
    await using tools = await open(config).catch(refuse);
    return await run(task, tools);
  } catch (error) {
    if (!(error instanceof Error) || codeOf(error) !== "overrides_unusable") throw error;
    process.stderr.write(`${printable(`matrix-icap-gateway: ${error.message}`)}\n`);
    return 2;
  }
}

/** The configuration is right, but what it leads to can't be used: no fault of the program. */
function refuse(error: unknown): never {
  if (!(error instanceof Error)) throw error;
  throw new UnusableError(error.message, { cause: error });
}

class UnusableError extends Error {
  override readonly name = "UnusableError";
  readonly code = "overrides_unusable";
}

interface Values {
  readonly config?: string | undefined;
  readonly file?: string | undefined;
  readonly reason?: string | undefined;
  readonly expires?: string | undefined;
  readonly user?: string | undefined;
  readonly "client-ip"?: string | undefined;
  readonly json?: boolean | undefined;
}

type Task = { readonly config: string; readonly json: boolean } & (
  | { readonly command: "list" }
  | { readonly command: "show"; readonly sha256: Buffer; readonly asker: Asker }
  | { readonly command: OverrideKind; readonly sha256: Buffer; readonly reason: string; readonly expires: number | undefined }
);

/** What is to be done, all of it checked before anything is. @throws UsageError */
async function readTask(values: Values, [word, ...words]: readonly string[]): Promise<Task> {
  const command = COMMANDS.find((name) => name === word);
  if (command === undefined)
    throw new UsageError(`verdict: ${word === undefined ? "the command is missing" : `unknown command: ${printable(word)}`}`);
  const isChange = command !== "show" && command !== "list";
  if (values.reason !== undefined && !isChange) throw new UsageError(`--reason means nothing to verdict ${command}`);
  if (values.expires !== undefined && (!isChange || command === "forget"))
    throw new UsageError(`--expires means nothing to verdict ${command}`);
  if (command !== "show") {
    for (const name of ["user", "client-ip"] as const) {
      if (values[name] !== undefined) throw new UsageError(`--${name} means nothing to verdict ${command}`);
    }
  }
  if (values.config === undefined) throw new UsageError("-c FILE is missing");
  const common = { config: values.config, json: values.json ?? false };
  if (command === "list") {
    if (values.file !== undefined || words.length > 0) throw new UsageError("verdict list shows them all: it takes no SHA256");
    return { ...common, command };
  }
  const [reason, expires] = [readReason(values.reason), readExpires(values.expires)];
  const asker = readAsker(values);
  const sha256 = await readSha256(values.file, words);
  return command === "show" ? { ...common, command, sha256, asker } : { ...common, command, sha256, reason, expires };
}

function readAsker({ user, "client-ip": clientAddress }: Values): Asker {
  if (user !== undefined && !/^@[^:]*:.+$/.test(user)) throw new UsageError("--user must be a Matrix user ID such as @alice:example.org");
  if (clientAddress !== undefined && isIP(clientAddress) === 0) throw new UsageError("--client-ip must be an IP address");
  return { ...(user === undefined ? {} : { user }), ...(clientAddress === undefined ? {} : { clientAddress }) };
}

function readReason(reason = ""): string {
  if (reason.length > MAX_REASON) throw new UsageError(`--reason is longer than ${MAX_REASON} characters`);
  if (printable(reason) !== reason) throw new UsageError("--reason must be printable characters in one line");
  return reason;
}

function readExpires(expires: string | undefined): number | undefined {
  if (expires === undefined) return undefined;
  const parsed = parseDuration(expires);
  if (parsed === undefined || parsed < 1) throw new UsageError("--expires must be a duration such as 12h, 30d or 1 year");
  if (parsed > LONGEST) throw new UsageError("--expires is more than 100 years: leave it out, for ever");
  return parsed;
}

async function readSha256(file: string | undefined, words: readonly string[]): Promise<Buffer> {
  const [hex, ...rest] = words;
  if (file !== undefined) {
    if (hex !== undefined) throw new UsageError("--file takes the place of SHA256: one of the two");
    return hashOf(file);
  }
  if (hex === undefined) throw new UsageError("SHA256 is missing");
  if (rest.length > 0) throw new UsageError(`unknown words: ${rest.map(printable).join(" ")}`);
  if (!/^[0-9a-f]{64}$/i.test(hex)) throw new UsageError("SHA256 must be 64 characters of hex");
  return Buffer.from(hex, "hex");
}

async function hashOf(path: string): Promise<Buffer> {
  try {
    await using file = await ScannedFile.open(path);
    const hash = createHash("sha256");
    for await (const piece of file.read()) hash.update(piece);
    await file.checkUnchanged();
    return hash.digest();
  } catch (error) {
    if (error instanceof FileError) throw new UsageError(`--file: ${printable(path)} ${error.message}`, { cause: error });
    throw error;
  }
}

async function run(task: Task, tools: VerdictTools): Promise<number> {
  const { records, problems } = await (task.command === "list" ? tools.overrides.read() : tools.overrides.readOf(task.sha256));
  for (const problem of problems) process.stderr.write(`${printable(problem)} (warning)\n`);
  switch (task.command) {
    case "list": {
      if (task.json) for (const record of records) process.stdout.write(jsonLine(overrideJson(record)));
      else listRows(records);
      return 0;
    }
    case "show": {
      const known = await knowledgeOf(task, records, tools);
      if (task.json) process.stdout.write(jsonLine(knowledgeJson(known)));
      else show(known);
      return known.overrides.length > 0 || known.listed === true || known.verdict !== undefined ? 0 : 1;
    }
    case "block":
    case "allow":
    case "forget":
      return change(task, records, tools);
  }
}

async function knowledgeOf(
  { sha256, asker }: { readonly sha256: Buffer; readonly asker: Asker },
  records: readonly KeptOverride[],
  tools: VerdictTools,
): Promise<Knowledge> {
  const hex = sha256.toString("hex");
  return {
    sha256: hex,
    overrides: records,
    listed: await tools.isListed?.(sha256),
    verdict: await tools.lookup?.(sha256, asker),
    isShared: tools.lookup !== undefined,
    keptApartBy: tools.keptApartBy,
  };
}

async function change(
  { command, sha256, reason, expires, json }: Extract<Task, { readonly reason: string }>,
  records: readonly KeptOverride[],
  tools: VerdictTools,
): Promise<number> {
  const hex = sha256.toString("hex");
  const stillListed = command !== "block" && (await tools.isListed?.(sha256)) === true;
  // It would lie in wait until the block is over.
  if (command === "allow" && (stillListed || records.some((record) => record.kind === "block"))) {
    const way = stillListed ? "take it from the list of blocked hashes first" : "forget that first";
    process.stderr.write(`matrix-icap-gateway: ${hex} is blocked, and a block wins over everything: ${way}\n`);
    return 2;
  }
  const expiresAt = expires === undefined ? {} : { expiresAt: Date.now() + expires };
  await tools.overrides.write(sha256, { kind: command, reason, ...expiresAt });
  const done = DONE[command];
  if (json) process.stdout.write(jsonLine({ sha256: hex, done, ...(expires === undefined ? {} : { expires: isoTime(expiresAt) }) }));
  else process.stdout.write(`${hex} ${done}${expires === undefined ? "" : ` until ${isoTime(expiresAt)}`}\n`);
  if (stillListed) process.stderr.write(`${hex} stays blocked: the list of blocked hashes names it (warning)\n`);
  return 0;
}

function isoTime({ expiresAt }: { readonly expiresAt?: number }): string | undefined {
  return expiresAt === undefined ? undefined : new Date(expiresAt).toISOString();
}
