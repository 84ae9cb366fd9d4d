/** A real nginx with the configuration that docs/deployment.md gives to operators: only ports and certificate are the test's own. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { connect } from "node:tls";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { startLocalMachine } from "./peers/local-machine.ts";
import type { Machine, Port } from "./peers/machine.ts";
import { Peer } from "./peers/peer.ts";
import { testCertificate } from "./tls.ts";

const DEPLOYMENT = fileURLToPath(new URL("../../docs/deployment.md", import.meta.url));
const TLS = fileURLToPath(new URL("../fixtures/tls/", import.meta.url));
const PROGRAMS = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx", "/usr/local/bin/nginx", "/opt/homebrew/bin/nginx"];

export interface NginxOptions {
  /** http URLs without a path. */
  readonly gateway: string;
  readonly synapse: string;
  /** With the location that refuses media to clients that don't ask the gateway. */
  readonly refuseDirectMedia?: boolean;
}

export class Nginx extends Peer {
  protected readonly name = "nginx";
  readonly #program: string;

  constructor(program: string, machine: Machine, directory: string, at: Port) {
    super(machine, directory, at);
    this.#program = program;
  }

  /** Its certificate is the test certificate. */
  get url(): string {
    return `https://${this.host}:${this.port}`;
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

  protected async ready(): Promise<void> {
    const socket = connect({ port: this.port, host: this.host, ca: testCertificate.cert });
    await once(socket, "secureConnect");
    socket.destroy();
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
async function serverBlock({ gateway, synapse, refuseDirectMedia = false }: NginxOptions, listen: string): Promise<string> {
  const blocks = [...(await readFile(DEPLOYMENT, "utf8")).matchAll(/^```nginx\n(.*?)^```$/gms)].map(([, block = ""]) => block);
  const only = (start: string): string => {
    const [block, second] = blocks.filter((text) => text.trimStart().startsWith(start));
    if (block === undefined || second !== undefined)
      throw new Error(`docs/deployment.md has not one nginx block that starts with ${start}`);
    return block;
  };
  const refusal = refuseDirectMedia ? only("location ~ ^/_matrix/(client/v1/media") : "";
  const replacements: readonly (readonly [string, string])[] = [
    ["listen 443 ssl", `listen ${listen} ssl`],
    ["/etc/ssl/matrix.example.org/fullchain.pem", `${TLS}cert.pem`],
    ["/etc/ssl/matrix.example.org/privkey.pem", `${TLS}key.pem`],
    ["http://127.0.0.1:8080;", `${gateway};`],
    ["http://127.0.0.1:8008;", `${synapse};`],
    ["    # Synapse.\n", `${refusal}    # Synapse.\n`],
  ];
  return replacements.reduce((text, [from, to]) => {
    if (text.split(from).length !== 2) throw new Error(`docs/deployment.md's nginx configuration has not one \`${from.trim()}\``);
    return text.replace(from, () => to);
  }, only("server {"));
}

/** @throws Error that says what is missing, or with the end of nginx's log */
export async function startNginx(options: NginxOptions): Promise<Nginx> {
  const machine = startLocalMachine();
  const nginx = new Nginx(findNginx(), machine, await machine.makeDirectory(), await machine.freePort());
  await nginx.prepare(options);
  await nginx.restart();
  return nginx;
}
