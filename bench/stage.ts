/** Everything around the generator: peers, each started when it is first wanted, and gateways. All are processes of their own, on loopback. */
import type { ChildProcess } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis as Client } from "ioredis";
import { startCIcap } from "../test/support/peers/c-icap.ts";
import { startClamd } from "../test/support/peers/clamd.ts";
import { startRedis } from "../test/support/peers/redis.ts";
import { endChild, nextMessage, startChild } from "./child.ts";
import { coresInHalves, keepOn } from "./cores.ts";
import { Gateway, type Settings, merge } from "./gateway.ts";
import type { HomeserverCounts } from "./homeserver.ts";
import type { IcapCounts } from "./instant-icap.ts";
import { usageOf } from "./process-tree.ts";
import { type CommandCounts, parseCommandStats, parseMemoryStats } from "./redis-stats.ts";
import { type Release, THIS_RELEASE } from "./release.ts";
import type { GatewaySetup, Scanner } from "./row.ts";

export interface HomeserverPeer {
  readonly pid: number;
  /** What paths of media begin with. */
  readonly url: string;
  readonly counts: () => Promise<HomeserverCounts>;
}

export interface ScannerPeer {
  readonly url: string;
  /** Not known of real ones. */
  readonly counts?: () => Promise<IcapCounts>;
}

export interface RedisPeer {
  readonly url: string;
  readonly empty: () => Promise<void>;
  /** Since it was started. */
  readonly commands: () => Promise<CommandCounts>;
  /** How many values there are, and how many bytes they take with their names and tables. */
  readonly keys: () => Promise<number>;
  readonly memory: () => Promise<number>;
}

/** Milliseconds before each answer of the slow one. */
const SLOW = 500;
const MEDIA_PATH = "/_matrix/client/v1/media";

export interface StageOptions {
  /** Of the homeserver; any free one, if it is 0. */
  readonly homeserverPort: number;
  /** Where CPU profiles of gateways go. */
  readonly profile?: string;
}

export class Stage implements AsyncDisposable {
  readonly #options: StageOptions;
  readonly #parts = new AsyncDisposableStack();
  readonly #scanners = new Map<Scanner, Promise<ScannerPeer>>();
  #homeserver: Promise<HomeserverPeer> | undefined;
  #redis: Promise<RedisPeer> | undefined;

  constructor(options: StageOptions) {
    this.#options = options;
  }

  homeserver(): Promise<HomeserverPeer> {
    return (this.#homeserver ??= this.#startHomeserver());
  }

  scanner(kind: Scanner): Promise<ScannerPeer> {
    const scanner = this.#scanners.get(kind) ?? this.#startScanner(kind);
    this.#scanners.set(kind, scanner);
    return scanner;
  }

  /**
   * Until it is disposed of, this process, the homeserver and what is started run on other cores than that scanner, if it is one that has cores of its own.
   * @throws Error with fewer than two cores, without taskset, or when the scanner runs in a container
   */
  async coresBeside(kind: Scanner): Promise<AsyncDisposable> {
    const parts = new AsyncDisposableStack();
    if (kind !== "real-apart") return parts;
    const { all, first, second } = await coresInHalves();
    const others = [process.pid, (await this.homeserver()).pid];
    parts.defer(() => keepOn(all, others));
    try {
      await keepOn(first, [process.pid]);
      await this.scanner(kind);
      await keepOn(second, others);
    } catch (error) {
      await parts.disposeAsync();
      throw error;
    }
    return parts;
  }

  redis(): Promise<RedisPeer> {
    return (this.#redis ??= this.#startRedis());
  }

  /** As many as it says, with the same secrets; ready. With Redis, that is emptied before. */
  async startGateways(setup: GatewaySetup, release: Release = THIS_RELEASE): Promise<Gateways> {
    if (setup.redis === true) await (await this.redis()).empty();
    const parts = new AsyncDisposableStack();
    const home = await mkdtemp(join(tmpdir(), "matrix-icap-gateway-bench-"));
    parts.defer(() => rm(home, { recursive: true, force: true }));
    const gateways: Gateway[] = [];
    try {
      const settings = await this.#settings(setup, home);
      for (let index = 0; index < (setup.instances ?? 1); index += 1) {
        const { profile } = this.#options;
        const directory = join(home, `gateway-${index}`);
        gateways.push(parts.use(await Gateway.start({ directory, settings, release, ...(profile === undefined ? {} : { profile }) })));
      }
    } catch (error) {
      await parts.disposeAsync();
      throw error;
    }
    return { gateways, [Symbol.asyncDispose]: () => parts.disposeAsync() };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.disposeAsync();
  }

  /** What bounds it stays at its defaults; clients come through a reverse proxy, as they should. */
  async #settings({ scanner = "instant", redis, settings = {}, service = {} }: GatewaySetup, home: string): Promise<Settings> {
    const { url } = await this.scanner(scanner);
    // Only c-icap knows EICAR.
    const antivirus: Settings = { name: "antivirus", urls: [url], ...(isReal(scanner) ? {} : { canary: [] }), ...service };
    const base: Settings = {
      web: { port: 0, trusted_proxies: ["127.0.0.1"] },
      admin: { port: 0 },
      icap: [antivirus],
      scan: { temp_directory: home },
      download: { base_homeserver_url: new URL((await this.homeserver()).url).origin },
      crypto: { request_secret_path: join(home, "request_secret") },
      result_cache: { overrides_path: join(home, "overrides"), ...(redis === true ? { redis: { url: (await this.redis()).url } } : {}) },
    };
    return merge(base, settings);
  }

  async #startHomeserver(): Promise<HomeserverPeer> {
    const child = this.#child("homeserver.ts", String(this.#options.homeserverPort));
    const port = await nextMessage<number>(child);
    return { pid: child.pid ?? 0, url: `http://127.0.0.1:${port}${MEDIA_PATH}`, counts: () => counts<HomeserverCounts>(child) };
  }

  async #startScanner(kind: Scanner): Promise<ScannerPeer> {
    if (kind === "real") return this.#startReal();
    if (kind === "real-apart") return this.#startApart();
    const child = this.#child("instant-icap.ts", kind === "slow" ? String(SLOW) : "0");
    return { url: await nextMessage<string>(child), counts: () => counts<IcapCounts>(child) };
  }

  async #startReal(): Promise<ScannerPeer> {
    const clamd = this.#parts.use(await startClamd());
    // A thread for each connection: an idle one holds its own, and others would wait until it is given up.
    const server = this.#parts.use(await startCIcap({ clamd, settings: { ThreadsPerChild: "32", MaxSpareThreads: "32" } }));
    return { url: server.url() };
  }

  /** Where this process runs. */
  async #startApart(): Promise<ScannerPeer> {
    const { processes } = await usageOf(process.pid);
    const scanner = await this.#startReal();
    if ((await usageOf(process.pid)).processes > processes) return scanner;
    throw new Error("a scanner in a container can't be kept on some cores: MIG_TEST_PEERS=packages starts it without one");
  }

  async #startRedis(): Promise<RedisPeer> {
    const { url } = this.#parts.use(await startRedis());
    const client = new Client(url);
    this.#parts.defer(() => client.disconnect());
    return {
      url,
      empty: async () => void (await client.flushall()),
      commands: async () => parseCommandStats(await client.info("commandstats")),
      keys: () => client.dbsize(),
      memory: async () => parseMemoryStats(await client.call("memory", "stats")),
    };
  }

  #child(name: string, ...args: readonly string[]): ChildProcess {
    const child = startChild(name, ...args);
    this.#parts.defer(() => endChild(child));
    return child;
  }
}

export interface Gateways extends AsyncDisposable {
  readonly gateways: readonly Gateway[];
}

function isReal(scanner: Scanner): boolean {
  return scanner === "real" || scanner === "real-apart";
}

function counts<T>(child: ChildProcess): Promise<T> {
  const answer = nextMessage<T>(child);
  child.send("counts");
  return answer;
}
