import { type Socket, connect } from "node:net";
import { fileURLToPath } from "node:url";
import { EICAR } from "../../../src/scan/canary-samples.ts";
import { machine } from "./choose-machine.ts";
import { Peer } from "./peer.ts";
import { withSettings } from "./settings.ts";

const CONFIGURATION = fileURLToPath(new URL("../../../docker/clamd.conf", import.meta.url));

export interface ClamdOptions {
  /** In place of those of docker/clamd.conf; undefined takes one out. */
  readonly settings?: Readonly<Record<string, string | undefined>>;
  /** False: makes everything ready, but `restart` has to start it. */
  readonly started?: boolean;
}

/** What Debian's clamd.conf says, where it differs from ours. */
export const DEBIAN_CLAMD = {
  MaxThreads: "12",
  StreamMaxLength: "25M",
  MaxFileSize: "25M",
  MaxScanSize: "100M",
  MaxHTMLNormalize: "10M",
  AlertExceedsMax: undefined,
  AlertEncrypted: undefined,
} as const;

/** Of the name under which EICAR is found, clamd adds `.UNOFFICIAL`. */
export const EICAR_THREAT = "Eicar-Test-Signature.UNOFFICIAL";

export class Clamd extends Peer {
  protected readonly name = "clamd";
  readonly #signatures: string[] = [signature("Eicar-Test-Signature", EICAR)];
  #version = 0;

  /** In the machine where it runs, for c-icap. */
  get socket(): string {
    return `${this.directory}/clamd.sock`;
  }

  /** Those to its Unix socket, also ones that it has not accepted yet: c-icap makes one for each file, once it has all of the file. */
  async connections(): Promise<number> {
    const sockets = await this.machine.read("/proc/net/unix");
    // One is the socket that listens.
    return sockets.split("\n").filter((line) => line.endsWith(` ${this.socket}`)).length - 1;
  }

  /** What clamd says of these bytes: `stream: OK`, `stream: NAME FOUND` or `… ERROR`. */
  async scan(bytes: Uint8Array): Promise<string> {
    const size = Buffer.alloc(4);
    size.writeUInt32BE(bytes.length);
    return exchange(this.#connect(), [Buffer.from("zINSTREAM\0"), size, bytes, Buffer.alloc(4)]);
  }

  /** Adds a signature for these bytes at the beginning of a file, and has the database, under a new version, loaded. */
  async addSignature(name: string, bytes: Uint8Array): Promise<void> {
    this.#signatures.push(signature(name, bytes));
    await this.#buildDatabase();
    await this.reload();
  }

  /** Has the signatures read again; resolves when the new ones are in use. */
  async reload(): Promise<void> {
    await this.#ask("RELOAD", "RELOADING");
    await this.until(() => this.#ask("VERSION", `/${this.#version}/`));
  }

  async prepare(settings: ClamdOptions["settings"]): Promise<void> {
    const directory = this.directory;
    await this.machine.run(["mkdir", `${directory}/db`, `${directory}/build`, `${directory}/tmp`]);
    await this.machine.write(
      `${directory}/clamd.conf`,
      await withSettings(CONFIGURATION, {
        PidFile: `${directory}/clamd.pid`,
        TemporaryDirectory: `${directory}/tmp`,
        DatabaseDirectory: `${directory}/db`,
        LocalSocket: this.socket,
        TCPAddr: this.at.listen,
        TCPSocket: String(this.at.inside),
        ...settings,
      }),
    );
    await this.#buildDatabase();
  }

  /** An unsigned daily.cud: only such a database gives clamd's VERSION a number, and c-icap makes its ISTag of that. */
  async #buildDatabase(): Promise<void> {
    this.#version++;
    const directory = this.directory;
    await this.machine.write(`${directory}/build/daily.ndb`, `${this.#signatures.join("\n")}\n`);
    await this.machine.write(`${directory}/build/COPYING`, "test\n");
    const build = `echo tester | sigtool --build=daily.cud --unsigned --cvd-version=${this.#version} --no-cdiff`;
    await this.machine.run(["sh", "-c", `cd '${directory}/build' && ${build} && mv daily.cud ../db/daily.cud`]);
  }

  protected command(): readonly string[] {
    return ["clamd", "--foreground", `--config-file=${this.directory}/clamd.conf`];
  }

  protected ready(): Promise<void> {
    return this.#ask("PING", "PONG");
  }

  #connect(): Socket {
    return connect(this.port, this.host);
  }

  async #ask(command: string, expected: string): Promise<void> {
    const answer = await exchange(this.#connect(), [Buffer.from(`z${command}\0`)]);
    if (!answer.includes(expected)) throw new Error(`clamd answers ${command} with ${answer.slice(0, 200)}`);
  }
}

async function exchange(socket: Socket, request: readonly Uint8Array[]): Promise<string> {
  socket.setTimeout(60_000, () => socket.destroy(new Error("clamd does not answer")));
  for (const piece of request) socket.write(piece);
  let answer = "";
  for await (const chunk of socket.setEncoding("latin1")) answer += String(chunk);
  return answer.replace(/\0$/, "");
}

function signature(name: string, bytes: Uint8Array): string {
  return `${name}:0:0:${Buffer.from(bytes).toString("hex")}`;
}

/** A real clamd with docker/clamd.conf that knows EICAR. */
export async function startClamd(options: ClamdOptions = {}): Promise<Clamd> {
  const where = await machine();
  const clamd = new Clamd(where, await where.makeDirectory(), await where.freePort());
  await clamd.prepare(options.settings);
  if (options.started !== false) await clamd.restart();
  return clamd;
}
