import { connect } from "node:net";
import { once } from "node:events";
import { machine } from "./choose-machine.ts";
import type { Machine, Port } from "./machine.ts";
import { Peer } from "./peer.ts";
import { replaceSettings } from "./settings.ts";

/** Where the package leaves its configuration, its lists and its rules (storyboards). */
const PACKAGE = "/etc/e2guardian";

export interface E2guardianOptions {
  readonly clamd: { readonly socket: string };
  /** In place of those of the package's e2guardian.conf; undefined takes one out. */
  readonly settings?: Readonly<Record<string, string | undefined>>;
}

/** What e2guardian's answer to REQMOD would have said of the request. RESPMOD without it is refused with 418. */
export const ALLOWED_REQUEST = ["X-ICAP-E2G", "-,G,0,0,0,"] as const;

/** Of two services, RESPMOD's scans; REQMOD's looks at the URL alone. */
export class E2guardian extends Peer {
  protected readonly name = "e2guardian";
  /** Of its web proxy, which it can't do without. */
  readonly #proxy: Port;

  constructor(machine: Machine, directory: string, at: Port, proxy: Port) {
    super(machine, directory, at);
    this.#proxy = proxy;
  }

  /** `icap://host:port/service`. */
  url(service = "response"): string {
    return `icap://${this.host}:${this.port}/${service}`;
  }

  /** The package's own configuration with the ICAP server and clamd switched on, which it has switched off. */
  async prepare({ clamd, settings }: E2guardianOptions): Promise<void> {
    const directory = this.directory;
    const [user, group] = await Promise.all(["-un", "-gn"].map(async (which) => (await this.machine.run(["id", which])).trim()));
    await this.machine.run(["mkdir", `${directory}/cache`]);
    await this.machine.run(["cp", `${PACKAGE}/e2guardianf1.conf`, directory]);
    await this.machine.write(`${directory}/clamdscan.conf`, `plugname = 'clamdscan'\nclamdudsfile = '${clamd.socket}'\n`);
    const own = {
      // It listens for ICAP on all addresses, whatever filterip says.
      icapport: String(this.at.inside),
      filterip: this.#proxy.listen,
      filterports: String(this.#proxy.inside),
      transparenthttpsport: undefined,
      contentscanner: `'${directory}/clamdscan.conf'`,
      filecachedir: `'${directory}/cache'`,
      loglocation: `'${directory}/access.log'`,
      pidfilename: `'${directory}/e2guardian.pid'`,
      daemonuser: `'${user}'`,
      daemongroup: `'${group}'`,
      nodaemon: "on",
      httpworkers: "20",
      ...settings,
    };
    const packaged = await this.machine.read(`${PACKAGE}/e2guardian.conf`);
    await this.machine.write(`${directory}/e2guardian.conf`, replaceSettings(packaged, own, " = "));
  }

  protected command(): readonly string[] {
    return ["e2guardian", "-N", "-c", `${this.directory}/e2guardian.conf`];
  }

  /** OPTIONS is answered; the connection stays open after it. */
  protected async ready(): Promise<void> {
    const socket = connect(this.port, this.host);
    socket.setTimeout(5_000, () => socket.destroy(new Error("e2guardian does not answer")));
    try {
      await once(socket, "connect");
      socket.write(`OPTIONS ${this.url()} ICAP/1.0\r\nHost: ${this.host}\r\n\r\n`);
      const [answer] = (await once(socket.setEncoding("latin1"), "data")) as [string];
      if (!answer.startsWith("ICAP/1.0 200")) throw new Error(`e2guardian answers OPTIONS with ${answer.slice(0, 200)}`);
    } finally {
      socket.destroy();
    }
  }
}

/** A real e2guardian as its Debian package sets it, but for what `prepare` says. */
export async function startE2guardian(options: E2guardianOptions): Promise<E2guardian> {
  const where = await machine();
  const [directory, at, proxy] = await Promise.all([where.makeDirectory(), where.freePort(), where.freePort()]);
  const server = new E2guardian(where, directory, at, proxy);
  await server.prepare(options);
  await server.restart();
  return server;
}
