import { connect } from "node:net";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { machine } from "./choose-machine.ts";
import { Peer } from "./peer.ts";
import { withSettings } from "./settings.ts";

const CONFIGURATION = fileURLToPath(new URL("../../../docker/c-icap/c-icap.conf", import.meta.url));

/** What Debian's virus_scan.conf says, where it differs from ours. */
export const DEBIAN_VIRUS_SCAN = {
  "virus_scan.ScanFileTypes": "TEXT DATA EXECUTABLE ARCHIVE GIF JPEG MSOFFICE",
  "virus_scan.SendPercentData": "5",
  "virus_scan.StartSendPercentDataAfter": "2M",
  "virus_scan.MaxObjectSize": "5M",
  "virus_scan.Allow204Responces": undefined,
  "virus_scan.PassOnError": undefined,
} as const;

/** The service as the gateway asks for it. */
export const VIRUS_SCAN = "virus_scan?allow204=on&force=on&sizelimit=off&mode=simple";

export interface CIcapOptions {
  /** It need not run yet, but then c-icap finds nothing, ever. */
  readonly clamd: { readonly socket: string };
  /** In place of those of docker/c-icap/c-icap.conf; undefined takes one out. */
  readonly settings?: Readonly<Record<string, string | undefined>>;
}

export class CIcap extends Peer {
  protected readonly name = "c-icap";
  protected override readonly log = "server.log";
  /** Its shared memory, which stays behind when it is ended by SIGKILL. */
  #memory: readonly string[] = [];

  /** `icap://host:port/service`. */
  url(service: string = VIRUS_SCAN): string {
    return `icap://${this.host}:${this.port}/${service}`;
  }

  /** Reads its configuration again, and clamd's version with it: the ISTag changes if that did. */
  async reconfigure(): Promise<void> {
    await this.machine.run(["sh", "-c", `printf reconfigure > '${this.directory}/c-icap.ctl'`]);
  }

  /** A line for each request that it has answered, with its method, URL, status and, at the end, how many bytes of a file came with it. */
  async accessLog(): Promise<readonly string[]> {
    const log = await this.machine.read(`${this.directory}/access.log`);
    return log.split("\n").filter((line) => line !== "");
  }

  async prepare({ clamd, settings }: CIcapOptions): Promise<void> {
    const directory = this.directory;
    const modules = (await this.machine.run(["sh", "-c", "dirname /usr/lib/*/c_icap/virus_scan.so"])).trim();
    await this.machine.run(["mkdir", `${directory}/tmp`]);
    const configuration = await withSettings(CONFIGURATION, {
      Port: `${this.at.listen}:${this.at.inside}`,
      PidFile: `${directory}/c-icap.pid`,
      CommandsSocket: `${directory}/c-icap.ctl`,
      ServerLog: `${directory}/server.log`,
      LogFormat: 'sizes "%tl, %la %a %im %iu %is %Ib"',
      AccessLog: `${directory}/access.log sizes`,
      TmpDir: `${directory}/tmp`,
      ModulesDir: modules,
      ServicesDir: modules,
      "clamd_mod.ClamdSocket": clamd.socket,
      ...settings,
    });
    // The example that comes with c-icap of a service that can answer 206.
    await this.machine.write(`${directory}/c-icap.conf`, `${configuration}Service ex206 srv_ex206.so\n`);
  }

  override async restart(): Promise<void> {
    await super.restart();
    const maps = `/proc/$(cat '${this.directory}/c-icap.pid')/maps`;
    this.#memory = (await this.machine.run(["sh", "-c", `grep -o '/dev/shm/c-icap[^ ]*' ${maps} | sort -u`])).split("\n").filter(Boolean);
  }

  override async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    const left = signal === "SIGKILL" && (await this.alive());
    await super.kill(signal);
    if (!left) return;
    for (const path of this.#memory) await this.machine.remove(path);
    this.#memory = [];
  }

  protected command(): readonly string[] {
    return ["c-icap", "-N", "-f", `${this.directory}/c-icap.conf`];
  }

  /** OPTIONS is answered. */
  protected async ready(): Promise<void> {
    const socket = connect(this.port, this.host);
    socket.setTimeout(5_000, () => socket.destroy(new Error("c-icap does not answer")));
    try {
      await once(socket, "connect");
      socket.write(`OPTIONS ${this.url("virus_scan")} ICAP/1.0\r\nHost: ${this.host}\r\nConnection: close\r\n\r\n`);
      let answer = "";
      for await (const chunk of socket.setEncoding("latin1")) {
        answer += String(chunk);
        if (answer.includes("\r\n\r\n")) break;
      }
      if (!answer.startsWith("ICAP/1.0 200")) throw new Error(`c-icap answers OPTIONS with ${answer.slice(0, 200)}`);
    } finally {
      socket.destroy();
    }
  }
}

/** A real c-icap with docker/c-icap/c-icap.conf. */
export async function startCIcap(options: CIcapOptions): Promise<CIcap> {
  const where = await machine();
  const server = new CIcap(where, await where.makeDirectory(), await where.freePort());
  await server.prepare(options);
  await server.restart();
  return server;
}
