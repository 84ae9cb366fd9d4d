/** Servers of Redis that know of each other: a master with a replica and a Sentinel, and a Cluster. */
import { machine } from "./choose-machine.ts";
import type { Machine, Port } from "./machine.ts";
import { Peer } from "./peer.ts";
import { answersPing, listeningSettings, makeRedisDirectory, Redis } from "./redis.ts";

/** Milliseconds without an answer after which the others hold a server for gone. */
const PATIENCE = "500";

/** One where the addresses that servers tell each other, and clients, are those that a test reaches them at. */
async function ownMachine(): Promise<Machine> {
  const where = await machine();
  const { host, inside, outside } = await where.freePort();
  if (host !== "127.0.0.1" || inside !== outside) {
    throw new Error("Sentinels and Clusters can't be tested in a container: set MIG_TEST_PEERS=packages, on Debian 12");
  }
  return where;
}

class SentinelServer extends Peer {
  protected readonly name = "Redis Sentinel";
  readonly #directives: Readonly<Record<string, string>>;
  readonly #password: string;
  readonly #tls: boolean;

  constructor(machine: Machine, directory: string, at: Port, directives: Readonly<Record<string, string>>, password: string, tls: boolean) {
    super(machine, directory, at);
    this.#directives = { ...listeningSettings(at, directory, tls), dir: directory, requirepass: password, ...directives };
    this.#password = password;
    this.#tls = tls;
  }

  /** To be called before the first start. It writes its own file anew, with what it has learned. */
  async writeFile(): Promise<void> {
    const lines = Object.entries(this.#directives).map(([name, value]) => `${name} ${value}\n`);
    await this.machine.write(`${this.directory}/sentinel.conf`, lines.join(""));
  }

  /** Resolves once it knows a replica that could take over. */
  async watches(master: string): Promise<void> {
    await this.until(async () => {
      const asked = [...redisCli(this.at, this.#tls ? this.directory : undefined), "--no-auth-warning", "-a", this.#password];
      const replicas = await this.machine.run([...asked, "sentinel", "replicas", master]);
      if (!/^master-link-status\nok$/m.test(replicas)) throw new Error("it knows of no replica yet");
    });
  }

  protected command(): readonly string[] {
    return ["redis-server", `${this.directory}/sentinel.conf`, "--sentinel"];
  }

  protected ready(): Promise<void> {
    return answersPing(this.at, this.#tls);
  }
}

export interface WatchedRedis extends AsyncDisposable {
  readonly master: Redis;
  readonly sentinels: readonly { readonly host: string; readonly port: number }[];
  /** The name under which the master is watched. */
  readonly name: string;
}

/** A master, a replica that takes over when the master is gone, and the Sentinel that sees to it. Their passwords are one word each. */
export async function startWatchedRedis(options: {
  readonly password: string;
  readonly sentinelPassword: string;
  readonly tls?: boolean;
}): Promise<WatchedRedis> {
  await using started = new AsyncDisposableStack();
  const where = await ownMachine();
  const { password, sentinelPassword, tls = false } = options;
  const start = async (settings: Readonly<Record<string, string>>): Promise<Redis> => {
    const common = { requirepass: password, masterauth: password, "repl-diskless-sync-delay": "0" };
    const directory = await makeRedisDirectory(where, tls);
    const server = started.use(new Redis(where, directory, await where.freePort(), { tls, settings: { ...common, ...settings } }));
    await server.restart();
    return server;
  };
  const master = await start({});
  await start({ replicaof: `${master.host} ${master.port}` });
  const name = "verdicts";
  const watching = {
    "sentinel monitor": `${name} ${master.host} ${master.port} 1`,
    "sentinel auth-pass": `${name} ${password}`,
    "sentinel down-after-milliseconds": `${name} ${PATIENCE}`,
    "sentinel failover-timeout": `${name} 2000`,
  };
  const directory = await makeRedisDirectory(where, tls);
  const sentinel = started.use(new SentinelServer(where, directory, await where.freePort(), watching, sentinelPassword, tls));
  await sentinel.writeFile();
  await sentinel.restart();
  await sentinel.watches(name);
  const all = started.move();
  const { host, port } = sentinel;
  return { master, name, sentinels: [{ host, port }], [Symbol.asyncDispose]: () => all.disposeAsync() };
}

export class RedisNode extends Redis {
  protected override readonly name = "A Redis of a Cluster";
  readonly #tls: boolean;

  constructor(machine: Machine, directory: string, at: Port, bus: Port, tls: boolean) {
    const encrypted: Readonly<Record<string, string>> = tls ? { "tls-cluster": "yes" } : {};
    const settings = { "cluster-enabled": "yes", "cluster-port": String(bus.inside), "cluster-node-timeout": PATIENCE, ...encrypted };
    super(machine, directory, at, { settings, tls });
    this.#tls = tls;
  }

  /** What redis-cli prints. */
  async ask(...command: readonly string[]): Promise<string> {
    return this.machine.run([...redisCli(this.at, this.#tls ? this.directory : undefined), ...command]);
  }

  /** Resolves once it holds that all slots are served. */
  async joined(): Promise<void> {
    await this.until(async () => {
      if (!/^cluster_state:ok\r?$/m.test(await this.ask("cluster", "info"))) throw new Error("it is not part of a Cluster yet");
    });
  }
}

export interface RedisCluster extends AsyncDisposable {
  /** Masters; each serves a third of the slots, in turn. */
  readonly nodes: readonly [RedisNode, RedisNode, RedisNode];
}

/** A Cluster of three masters, without replicas. */
export async function startRedisCluster({ tls = false }: { readonly tls?: boolean } = {}): Promise<RedisCluster> {
  await using started = new AsyncDisposableStack();
  const where = await ownMachine();
  const start = async (): Promise<RedisNode> => {
    const directory = await makeRedisDirectory(where, tls);
    const node = started.use(new RedisNode(where, directory, await where.freePort(), await where.freePort(), tls));
    await node.restart();
    return node;
  };
  const nodes = [await start(), await start(), await start()] as const;
  const addresses = nodes.map(({ host, port }) => `${host}:${port}`);
  await nodes[0].ask("--cluster", "create", ...addresses, "--cluster-yes");
  await Promise.all(nodes.map((node) => node.joined()));
  const all = started.move();
  return { nodes, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

/** @param certificates the directory that holds them, for TLS */
function redisCli({ host, inside }: Port, certificates: string | undefined): readonly string[] {
  const address = ["redis-cli", "-h", host, "-p", String(inside)];
  if (certificates === undefined) return address;
  const file = (name: string): string => `${certificates}/${name}.pem`;
  return [...address, "--tls", "--cacert", file("ca"), "--cert", file("client"), "--key", file("client-key")];
}
