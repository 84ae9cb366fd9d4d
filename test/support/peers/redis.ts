import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { createInterface } from "node:readline";
import { connect as connectTls } from "node:tls";
import { machine } from "./choose-machine.ts";
import type { Machine, Port } from "./machine.ts";
import { Peer } from "./peer.ts";

export interface RedisOptions {
  /** Command line options without their dashes, such as `{ maxmemory: "1mb" }`; what is more than one word becomes several arguments. */
  readonly settings?: Readonly<Record<string, string>>;
  /** TLS alone, and only with clients that have a certificate of the test authority. */
  readonly tls?: boolean;
}

const pem = (name: string): string => readFileSync(new URL(`../../fixtures/tls/icap-${name}.pem`, import.meta.url), "utf8");

/** The test authority's certificates. The server's holds localhost, av.example.test and the loopback addresses. */
export const redisCertificates = {
  ca: pem("ca"),
  server: { cert: pem("server"), key: pem("server-key") },
  client: { cert: pem("client-a"), key: pem("client-a-key") },
};

export class Redis extends Peer {
  protected readonly name: string = "Redis";
  readonly #settings: Readonly<Record<string, string>>;
  readonly #tls: boolean;

  constructor(machine: Machine, directory: string, at: Port, { settings = {}, tls = false }: RedisOptions) {
    super(machine, directory, at);
    this.#settings = settings;
    this.#tls = tls;
  }

  get url(): string {
    return `${this.#tls ? "rediss" : "redis"}://${this.host}:${this.port}`;
  }

  protected command(): readonly string[] {
    const listening = { ...listeningSettings(this.at, this.directory, this.#tls), "protected-mode": "no" };
    const settings = { ...listening, dir: this.directory, save: "", appendonly: "no", ...this.#settings };
    return ["redis-server", ...Object.entries(settings).flatMap(([name, value]) => [`--${name}`, ...value.split(" ")])];
  }

  protected ready(): Promise<void> {
    return answersPing(this.at, this.#tls);
  }
}

/** What a Redis without TLS is asked from now on, whoever asks it: lines as MONITOR prints them. Until it is disposed of, or Redis is gone. */
export class Monitor implements Disposable {
  readonly lines: string[] = [];
  readonly #socket: Socket;

  private constructor(socket: Socket) {
    this.#socket = socket;
  }

  static async start({ port, host }: Redis): Promise<Monitor> {
    const socket = connect(port, host);
    socket.on("error", () => undefined);
    const monitor = new Monitor(socket);
    const lines = createInterface(socket);
    lines.on("line", (line) => void monitor.lines.push(line));
    socket.write("MONITOR\r\n");
    await once(lines, "line");
    return monitor;
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}

/** Where it listens, as its configuration has it; with TLS it tells other servers of its TLS port alone, and asks theirs. */
export function listeningSettings(at: Port, directory: string, tls: boolean): Readonly<Record<string, string>> {
  const port = String(at.inside);
  if (!tls) return { bind: at.listen, port };
  return {
    bind: at.listen,
    port: "0",
    "tls-port": port,
    "tls-ca-cert-file": `${directory}/ca.pem`,
    "tls-cert-file": `${directory}/cert.pem`,
    "tls-key-file": `${directory}/key.pem`,
    "tls-client-cert-file": `${directory}/client.pem`,
    "tls-client-key-file": `${directory}/client-key.pem`,
    "tls-auth-clients": "yes",
    "tls-replication": "yes",
  };
}

/** A directory that holds what `listeningSettings` names. */
export async function makeRedisDirectory(where: Machine, tls: boolean): Promise<string> {
  const directory = await where.makeDirectory();
  if (!tls) return directory;
  const { ca, server, client } = redisCertificates;
  const files = { ca, cert: server.cert, key: server.key, client: client.cert, "client-key": client.key };
  for (const [name, content] of Object.entries(files)) await where.write(`${directory}/${name}.pem`, content);
  return directory;
}

/** @throws Error unless a Redis, or a Sentinel, answers there */
export async function answersPing({ host, outside: port }: Port, tls: boolean): Promise<void> {
  const { ca, client } = redisCertificates;
  const socket = tls ? connectTls({ port, host, ca, ...client }) : connect(port, host);
  socket.setTimeout(5_000, () => socket.destroy(new Error("Redis does not answer")));
  socket.write("PING\r\n");
  try {
    for await (const chunk of socket.setEncoding("latin1")) {
      // With a password it is ready as well.
      if (/^(?:\+PONG|-NOAUTH)/.test(String(chunk))) return;
      throw new Error(`Redis answers PING with ${String(chunk).slice(0, 200)}`);
    }
    throw new Error("Redis closes the connection");
  } finally {
    socket.destroy();
  }
}

/** A real Redis that keeps nothing on disk. */
export async function startRedis(options: RedisOptions = {}): Promise<Redis> {
  const where = await machine();
  const directory = await makeRedisDirectory(where, options.tls === true);
  const server = new Redis(where, directory, await where.freePort(), options);
  await server.restart();
  return server;
}
