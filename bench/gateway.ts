/** The gateway as it is installed: a process of its own with a configuration file of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { BASE_PATH } from "../src/http/app.ts";
import { endChild } from "./child.ts";
import type { Release } from "./release.ts";

/** A section of the configuration file, or a value in one. */
export type Setting = string | number | boolean | readonly Setting[] | Settings;
export interface Settings {
  readonly [key: string]: Setting;
}

export interface GatewayOptions {
  /** Its own: for what it writes. */
  readonly directory: string;
  /** JSON, which is YAML. Listeners are on free ports. */
  readonly settings: Settings;
  /** Where Node's CPU profile goes when it ends. */
  readonly profile?: string;
  readonly release: Release;
}

interface Address {
  readonly port: number;
}

/** Milliseconds until it must be ready. */
const READY_WITHIN = 60_000;
const WARNINGS = 4;
/** Milliseconds between two questions whether it is. */
const POLL = 5;

export class Gateway implements AsyncDisposable {
  readonly pid: number;
  /** What paths of the API begin with. */
  readonly url: string;
  /** Milliseconds from the start of its process until it was ready, scanners proven. */
  readonly readyAfter: number;
  readonly #child: ChildProcess;
  readonly #logFile: string;

  private constructor(child: ChildProcess, logFile: string, address: Address, readyAfter: number) {
    this.#child = child;
    this.#logFile = logFile;
    this.pid = child.pid ?? 0;
    this.url = `http://127.0.0.1:${address.port}${BASE_PATH}`;
    this.readyAfter = readyAfter;
  }

  /** Resolves when it is ready. @throws Error with its log when it ends instead, or takes too long */
  static async start({ directory, settings, profile, release }: GatewayOptions): Promise<Gateway> {
    await mkdir(directory, { recursive: true });
    const file = join(directory, "config.yaml");
    await writeFile(file, JSON.stringify(settings));
    const profiling = profile === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${profile}`];
    const logFile = join(directory, "gateway.log");
    // As a service manager would have it: what it logs costs nobody else's time.
    await using log = await open(logFile, "w");
    const started = performance.now();
    const child = spawn(process.execPath, [...release.nodeFlags, ...profiling, release.main, "-c", file], {
      env: { PATH: process.env["PATH"], HOME: directory },
      stdio: ["ignore", log.fd, log.fd],
    });
    const kill = (): boolean => child.kill("SIGKILL");
    process.once("exit", kill);
    child.once("exit", () => process.off("exit", kill));
    try {
      const { address, adminAddress } = await until(child, logFile, () => listening(logFile));
      await until(child, logFile, () => isReady(adminAddress));
      return new Gateway(child, logFile, address, performance.now() - started);
    } catch (error) {
      await endChild(child);
      throw error;
    }
  }

  /** What it has logged that is more than information: of each kind of line the first one. */
  async warnings(): Promise<string[]> {
    const lines = (await readFile(this.#logFile, "utf8")).split("\n").filter((line) => line !== "" && !line.includes('"level":"info"'));
    const kinds = Map.groupBy(lines, (line) => /"outcome":"\w+"/.exec(line)?.[0] ?? /"msg":"[^"]*"/.exec(line)?.[0]);
    return [...kinds.values()].slice(0, WARNINGS).map(([first = ""]) => first.slice(0, 400));
  }

  /** So that a profile is written, it may end in its own time. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, "exit");
    this.#child.kill("SIGTERM");
    await exited;
  }
}

/** Settings over those of another, key by key. */
export function merge(below: Settings, above: Settings): Settings {
  const merged: Record<string, Setting> = { ...below };
  for (const [key, value] of Object.entries(above)) {
    const under = merged[key];
    merged[key] = isSection(under) && isSection(value) ? merge(under, value) : value;
  }
  return merged;
}

function isSection(value: Setting | undefined): value is Settings {
  return typeof value === "object" && !Array.isArray(value);
}

async function until<T>(child: ChildProcess, logFile: string, find: () => Promise<T | undefined>): Promise<T> {
  const deadline = performance.now() + READY_WITHIN;
  for (;;) {
    const found = await find();
    if (found !== undefined) return found;
    const ended = child.exitCode !== null || child.signalCode !== null;
    if (ended || performance.now() > deadline) {
      const log = await readFile(logFile, "utf8");
      throw new Error(`the gateway ${ended ? "has ended" : "is not ready"}: ${log.slice(-2000)}`);
    }
    await sleep(POLL);
  }
}

async function listening(logFile: string): Promise<{ address: Address; adminAddress: Address } | undefined> {
  const line = /^.*"msg":"listening".*$/m.exec(await readFile(logFile, "utf8"))?.[0];
  return line === undefined ? undefined : (JSON.parse(line) as { address: Address; adminAddress: Address });
}

async function isReady({ port }: Address): Promise<true | undefined> {
  const { status } = await fetch(`http://127.0.0.1:${port}/health/ready`);
  return status === 200 ? true : undefined;
}
