/**
 * `npm run quickstart`: a demonstration homeserver, an ICAP server and the gateway, all in this process and on loopback. Sends a few files through
 * it, prints what came back, and stays up to be tried; with `--once` it ends instead, with 0 if every answer was as it should be.
 */
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { loadConfig } from "../src/config/load.ts";
import { type Gateway, createGateway } from "../src/gateway.ts";
import { createLogger } from "../src/observability/log.ts";
import { startAntivirus } from "./antivirus.ts";
import { ScannerClient } from "./client.ts";
import { curlCommands } from "./curl-commands.ts";
import { makeDemoMedia } from "./demo-media.ts";
import { HeldLog } from "./held-log.ts";
import { startMediaRepository } from "./media-repository.ts";
import { table } from "./table.ts";
import { type Row, TOKEN, tour } from "./tour.ts";

/** Milliseconds in which the gateway must have proved that its scanner works. */
const READY_LIMIT = 10_000;

const { values: options } = parseArgs({ options: { once: { type: "boolean", default: false } } });
const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => stop.abort());
const log = new HeldLog(process.stdout);
try {
  await run();
} catch (error) {
  if (!stop.signal.aborted) {
    log.show();
    throw error;
  }
}

async function run(): Promise<void> {
  const media = await makeDemoMedia();
  await using repository = await startMediaRepository(media.stored, TOKEN);
  await using antivirus = await startAntivirus();
  await using directory = await temporaryDirectory();
  const configFile = await writeConfig(directory.path, repository.url, antivirus.url);
  const { config } = await loadConfig(configFile);
  await using gateway = await createGateway(config, { log: createLogger({ ...config.log, stream: log }) });
  await ready(gateway);

  const url = urlOf(gateway.address);
  print("");
  print(`demo homeserver  ${repository.url}`);
  print(`ICAP antivirus   ${antivirus.url}  (knows EICAR, encrypted zips and a list of SHA-256)`);
  print(`gateway          ${url}  (${configFile})`);
  print("");
  const rows = await walk(url, media);
  print("");
  const wrong = rows.filter((row) => row.expected !== undefined);
  for (const row of wrong) print(`NOT AS IT SHOULD BE: ${row.request.trim()}: expected ${row.expected ?? ""}`);
  if (wrong.length === 0) print(`All ${rows.length} answers are as they should be.`);
  else {
    process.exitCode = 1;
    log.show();
  }
  if (options.once) return;

  print("");
  print("Try it:");
  print("");
  for (const line of curlCommands(url, urlOf(gateway.adminAddress), media)) print(line);
  print("");
  print("Ctrl-C ends it. What you send shows in the gateway's log:");
  log.follow();
  if (!stop.signal.aborted) await once(stop.signal, "abort");
  print("");
}

async function walk(url: string, media: Awaited<ReturnType<typeof makeDemoMedia>>): Promise<Row[]> {
  await using client = new ScannerClient(url, stop.signal);
  const rows = await Array.fromAsync(tour(client, media));
  const cells = rows.map(({ request, status, answer, verdict, milliseconds }) => [
    request,
    status,
    answer,
    verdict,
    Math.round(milliseconds),
  ]);
  print(table(["request", "status", "answer", "verdict", "ms"], cells));
  return rows;
}

async function temporaryDirectory(): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), "matrix-icap-gateway-quickstart-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** As an operator would write it; JSON strings are YAML. */
async function writeConfig(directory: string, homeserver: string, icap: string): Promise<string> {
  const file = join(directory, "config.yaml");
  await writeFile(
    file,
    `web: { host: 127.0.0.1, port: 0 }
admin: { host: 127.0.0.1, port: 0 }
icap:
  - name: antivirus
    urls: [${JSON.stringify(icap)}]
    canary: [plain, zip, pdf, expand, encrypted]
scan:
  temp_directory: ${JSON.stringify(directory)}
download:
  base_homeserver_url: ${JSON.stringify(homeserver)}
crypto:
  request_secret_path: ${JSON.stringify(join(directory, "request_secret"))}
`,
  );
  return file;
}

async function ready(gateway: Gateway): Promise<void> {
  const deadline = performance.now() + READY_LIMIT;
  while (!gateway.readiness().ready) {
    if (performance.now() > deadline) throw new Error(`the gateway is not ready: ${gateway.readiness().problems.join("; ")}`);
    await sleep(20, undefined, { signal: stop.signal });
  }
}

function urlOf({ host, port }: Gateway["address"]): string {
  return `http://${host}:${port}`;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
