import { connect } from "node:net";
import { machine } from "./choose-machine.ts";
import type { Machine, Port } from "./machine.ts";
import { Peer } from "./peer.ts";

export interface RedisOptions {
  /** Command line options without their dashes, such as `{ maxmemory: "1mb" }`. */
  readonly settings?: Readonly<Record<string, string>>;
}

export class Redis extends Peer {
  protected readonly name = "Redis";
  readonly #settings: Readonly<Record<string, string>>;

  constructor(machine: Machine, directory: string, at: Port, settings: Readonly<Record<string, string>>) {
    super(machine, directory, at);
    this.#settings = settings;
  }

  get url(): string {
    return `redis://${this.host}:${this.port}`;
  }

  protected command(): readonly string[] {
    const network = { bind: this.at.listen, port: String(this.at.inside), "protected-mode": "no" };
    const settings = { ...network, dir: this.directory, save: "", appendonly: "no", ...this.#settings };
    return ["redis-server", ...Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value])];
  }

  protected async ready(): Promise<void> {
    const socket = connect(this.port, this.host);
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
}

/** A real Redis that keeps nothing on disk. */
export async function startRedis(options: RedisOptions = {}): Promise<Redis> {
  const where = await machine();
  const server = new Redis(where, await where.makeDirectory(), await where.freePort(), options.settings ?? {});
  await server.restart();
  return server;
}
