/** A real nginx with the configuration that docs/deployment.md gives to operators: only ports and certificate are the test's own. */
import { existsSync } from "node:fs";
import { blockOf, type MediaMark, mediaPart, type MediaPaths, marksOf, replaced, TLS, type Upstreams } from "./deployment.ts";
import { startLocalMachine } from "./peers/local-machine.ts";
import type { Machine, Port } from "./peers/machine.ts";
import { TlsPeer } from "./peers/tls-peer.ts";

const PROGRAMS = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx", "/usr/local/bin/nginx", "/opt/homebrew/bin/nginx"];

export interface NginxOptions extends Upstreams {
  readonly mediaPaths?: MediaPaths;
  /** Texts about media, one behind another; the one that it takes, unless set. */
  readonly marks?: readonly MediaMark[];
}

export class Nginx extends TlsPeer {
  protected readonly name = "nginx";
  readonly #program: string;

  constructor(program: string, machine: Machine, directory: string, at: Port) {
    super(machine, directory, at);
    this.#program = program;
  }

  async prepare(options: NginxOptions): Promise<void> {
    const server = await serverBlock(options, `${this.at.listen}:${this.at.inside}`);
    await this.machine.write(
      `${this.directory}/nginx.conf`,
      [
        // Workers give up root for a user that may not read the test's folder.
        process.getuid?.() === 0 ? "user root;" : "",
        "daemon off;",
        "worker_processes 1;",
        `pid ${this.directory}/nginx.pid;`,
        "error_log stderr warn;",
        "events {}",
        "http {",
        "access_log off;",
        ...["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) => `${kind}_temp_path ${this.directory}/${kind};`),
        server,
        "}",
        "",
      ].join("\n"),
    );
  }

  protected command(): readonly string[] {
    return [this.#program, "-e", "stderr", "-p", this.directory, "-c", `${this.directory}/nginx.conf`];
  }
}

/** Where nginx is. @throws Error that says what to do, where it is not */
export function findNginx(): string {
  const found = installed();
  if (found === undefined) throw new Error("The end-to-end tests need nginx: run `sudo test/e2e/install.sh` once (Debian's nginx-light).");
  return found;
}

function installed(): string | undefined {
  return PROGRAMS.find((path) => existsSync(path));
}

/** @throws Error when the document no longer has what is to be replaced */
async function serverBlock(
  { gateway, synapse, scansUploads = false, mediaPaths = "synapse", marks = marksOf(mediaPaths, scansUploads) }: NginxOptions,
  listen: string,
): Promise<string> {
  const locations = (await mediaPart("nginx", marks)) + (mediaPaths === "refused" ? await blockOf("nginx", "return 403;") : "");
  const text = replaced(await blockOf("nginx", "server {"), [
    ["listen 443 ssl", `listen ${listen} ssl`],
    ["/etc/ssl/matrix.example.org/fullchain.pem", `${TLS}cert.pem`],
    ["/etc/ssl/matrix.example.org/privkey.pem", `${TLS}key.pem`],
    ["    # Synapse.\n", `${locations}    # Synapse.\n`],
  ]);
  return text.replaceAll("http://127.0.0.1:8080;", `${gateway};`).replaceAll("http://127.0.0.1:8008;", `${synapse};`);
}

/** @throws Error that says what is missing, or with the end of nginx's log */
export async function startNginx(options: NginxOptions): Promise<Nginx> {
  const machine = startLocalMachine();
  const nginx = new Nginx(findNginx(), machine, await machine.makeDirectory(), await machine.freePort());
  await nginx.prepare(options);
  await nginx.restart();
  return nginx;
}
