/** The command line, the signals, and what a process needs before anything is loaded: its heap and its compile cache. */
import { readFile } from "node:fs/promises";
import { enableCompileCache, findPackageJSON } from "node:module";
import { homedir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { UsageError, parseCommandLine } from "./command/command-line.ts";
import type { Config } from "./config/load.ts";
import type { Gateway } from "./gateway.ts";
import type { Logger } from "./observability/log.ts";
import type { Primary } from "./primary.ts";

keepYoungGenerationSmall();
cacheCompiledCode();

const USAGE = `Usage:
  matrix-icap-gateway -c FILE                starts the gateway
  matrix-icap-gateway check-config -c FILE   says what is wrong with a configuration file, and starts nothing
  matrix-icap-gateway verdict …              blocks or allows a file by its hash, and shows what is known of it
  matrix-icap-gateway icap options URL       shows what an ICAP service says of itself
  matrix-icap-gateway icap scan URL FILE…    has files scanned by an ICAP service
  matrix-icap-gateway icap canary URL        shows what an ICAP service catches, and what to set if that is not enough

  -c, --config FILE   the configuration file; config.example.yaml explains each key
  -h, --help          shows this
      --version       shows the version

Exit status: 0 when all is well, 1 when the gateway fails, 2 when the command line or the configuration is wrong.
\`icap --help\` and \`verdict --help\` say more.
SIGTERM and SIGINT end the gateway once it has finished what it is at; a second one ends it at once.
`;

/** Milliseconds: the last resort, past the limit that the gateway sets itself. */
const FORCED_EXIT = 25_000;
/** Milliseconds that a worker has to leave nothing behind once its primary is gone. */
const ABANDONED_EXIT = 3_000;
/** Milliseconds in which more signals are the same one: Ctrl-C comes from the terminal, from npm and from the launcher. */
const SAME_SIGNAL = 1000;

try {
  await run(process.argv.slice(2));
} catch (error) {
  const message = error instanceof Error ? await complaint(error) : undefined;
  if (message === undefined) throw error;
  process.stderr.write(`${message}\n`);
  process.exitCode = 2;
}

/** What is wrong with the command line or the configuration; undefined when something else went wrong. */
async function complaint(error: Error): Promise<string | undefined> {
  if (error instanceof UsageError) return `matrix-icap-gateway: ${error.message} (--help shows what there is)`;
  const { ConfigError } = await import("./config/load.ts");
  return error instanceof ConfigError ? error.message : undefined;
}

async function run(args: readonly string[]): Promise<void> {
  if (args[0] === "worker") return work();
  if (args[0] === "icap") {
    const { icap } = await import("./command/icap.ts");
    process.exitCode = await icap(args.slice(1));
    return;
  }
  if (args[0] === "verdict") {
    const { verdict } = await import("./command/verdict.ts");
    process.exitCode = await verdict(args.slice(1), async (config) => (await import("./verdict-tools.ts")).openVerdictTools(config));
    return;
  }
  const { values, positionals } = parseCommandLine(args, {
    config: { type: "string", short: "c" },
    help: { type: "boolean", short: "h" },
    version: { type: "boolean" },
  });
  if (values.help) return void process.stdout.write(USAGE);
  if (values.version) return void process.stdout.write(`${await version()}\n`);
  const [command = "start", ...rest] = positionals;
  if (!["start", "check-config"].includes(command) || rest.length > 0) throw new UsageError(`unknown words: ${positionals.join(" ")}`);
  if (values.config === undefined) throw new UsageError("-c FILE is missing");
  await (command === "start" ? start(values.config) : check(values.config));
}

async function check(file: string): Promise<void> {
  const { loadConfig } = await import("./config/load.ts");
  const { warnings } = await loadConfig(file);
  for (const warning of warnings) process.stderr.write(`${warning} (warning)\n`);
  process.stdout.write(`${file}: OK\n`);
}

async function start(file: string): Promise<void> {
  const { loadConfig } = await import("./config/load.ts");
  const { config, warnings } = await loadConfig(file);
  const { createLogger } = await import("./observability/log.ts");
  const log = createLogger(config.log);
  endOnSurprise(log, "the gateway");
  for (const warning of warnings) log.warn(warning);
  const stop = stopRequested(log);
  await using gateway = await startGateway(config, log);
  const { address, adminAddress } = gateway;
  log.info({ address, adminAddress, version: await version() }, "listening");
  const end = await Promise.race([stop, ...("failed" in gateway ? [gateway.failed] : [])]);
  if (typeof end === "string") log.info({ signal: end }, "shutting down; requests that are under way may finish");
  else log.fatal(`the gateway ends: ${end.message}`);
  limitShutdown(log, FORCED_EXIT);
  const orderly = await gateway.shutdown();
  log.info("bye");
  if (typeof end !== "string" || orderly === false) process.exitCode = 1;
}

async function startGateway(config: Config, log: Logger): Promise<Gateway | Primary> {
  try {
    if (config.web.workers === 1) return await (await import("./gateway.ts")).createGateway(config, { log });
    return await (await import("./primary.ts")).createPrimary(config, { log, version: await version() });
  } catch (error) {
    const reason = error instanceof Error ? error.message : "unknown reason";
    log.fatal(log.isLevelEnabled("debug") ? { err: error } : {}, `the gateway can't start: ${reason}`);
    return process.exit(1);
  }
}

/** One of the processes that a gateway consists of; it is started by another one, which also tells of it. */
async function work(): Promise<void> {
  const stop = new Promise<"stop">((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => resolve("stop"));
  });
  const { joinPrimary } = await import("./worker.ts");
  const worker = await joinPrimary(await version());
  if (worker === undefined) throw new UsageError("worker is no command for people: set web.workers in the configuration");
  const { log } = worker;
  endOnSurprise(log, "this worker");
  const abandoned = worker.abandoned.then(() => limitShutdown(log, ABANDONED_EXIT));
  const service = await worker.serve().catch(() => process.exit(1));
  if ((await Promise.race([stop, abandoned])) === "stop") {
    limitShutdown(log, FORCED_EXIT);
    await service.shutdown();
    await worker.leave(service);
    process.exit(0);
  }
  log.fatal("the primary process is gone; this worker ends");
  await service[Symbol.asyncDispose]();
  process.exit(1);
}

/** Rejections that nobody handles come here too. What state is left is anybody's guess, so nothing is served from it. */
function endOnSurprise(log: Logger, what: string): void {
  process.on("uncaughtException", (error) => {
    log.fatal({ err: error }, `unexpected failure; ${what} ends`);
    process.exit(1);
  });
}

function limitShutdown(log: Logger, limit: number): void {
  setTimeout(() => {
    log.error("the shutdown takes too long; ending at once");
    process.exit(1);
  }, limit).unref();
}

/** Resolves with the first signal to end. One that comes later, in earnest, ends the process. */
function stopRequested(log: Logger): Promise<NodeJS.Signals> {
  const { promise, resolve } = Promise.withResolvers<NodeJS.Signals>();
  let state: "running" | "stopping" | "impatient" = "running";
  const onSignal = (signal: NodeJS.Signals): void => {
    if (state === "impatient") {
      log.error({ signal }, "a second signal; ending at once");
      process.exit(1);
    }
    if (state === "stopping") return;
    state = "stopping";
    setTimeout(() => {
      state = "impatient";
      log.info("still at it; another signal ends it at once");
    }, SAME_SIGNAL).unref();
    resolve(signal);
  };
  process.on("SIGTERM", onSignal);
  process.on("SIGINT", onSignal);
  return promise;
}

/**
 * Media passes through buffers that live for an instant. A young generation that grows with the load collects them late, and more memory is taken at the
 * peak (`npm run bench -- --only large`, with and without this). Where it begins is for who starts Node to say, as bin/ does.
 */
function keepYoungGenerationSmall(): void {
  setFlagsFromString("--semi-space-growth-factor=1");
}

/** Saves a fifth of the time to start. */
function cacheCompiledCode(): void {
  try {
    // Of this user alone, since whoever writes there runs code here: the default is in the temporary directory that all users share.
    enableCompileCache(join(homedir(), ".cache", "matrix-icap-gateway"));
  } catch {
    // A user without a home starts a little slower.
  }
}

async function version(): Promise<string> {
  const file = findPackageJSON(import.meta.url);
  const manifest = file === undefined ? {} : (JSON.parse(await readFile(file, "utf8")) as { version?: string });
  return manifest.version ?? "unknown";
}
