/** A real HAProxy with the configuration that docs/deployment.md gives to operators: only ports and certificate are the test's own. */
import { blockOf, type MediaPaths, replaced, type Upstreams, uploadsBlock, withoutUnmodifiedClients } from "./deployment.ts";
import { startLocalMachine } from "./peers/local-machine.ts";
import { TlsPeer } from "./peers/tls-peer.ts";
import { testCertificate } from "./tls.ts";

const UNMODIFIED = "    # Unmodified clients, from here\n";

class HaProxy extends TlsPeer {
  protected readonly name = "HAProxy";

  async prepare({ gateway, synapse, scansUploads = false }: Upstreams, mediaPaths: MediaPaths): Promise<void> {
    const uploads = scansUploads ? await uploadsBlock("haproxy") : "";
    const block = replaced(await blockOf("haproxy", "frontend"), [[UNMODIFIED, `${uploads}${UNMODIFIED}`]]);
    const text = replaced(mediaPaths === "gateway" ? block : withoutUnmodifiedClients(block), [
      ["bind :443", `bind ${this.at.listen}:${this.at.inside}`],
      ["/etc/ssl/matrix.example.org.pem", `${this.directory}/certificate.pem`],
      ["127.0.0.1:8080", new URL(gateway).host],
      ["127.0.0.1:8008", new URL(synapse).host],
    ]);
    await this.machine.write(`${this.directory}/certificate.pem`, testCertificate.cert + testCertificate.key);
    await this.machine.write(`${this.directory}/haproxy.cfg`, text);
    await this.machine.run(["haproxy", "-c", "-f", `${this.directory}/haproxy.cfg`]);
  }

  protected command(): readonly string[] {
    return ["haproxy", "-db", "-f", `${this.directory}/haproxy.cfg`];
  }
}

/** @throws Error that says what is missing or wrong, or with the end of HAProxy's log */
export async function startHaProxy(upstreams: Upstreams, mediaPaths: MediaPaths): Promise<TlsPeer> {
  const machine = startLocalMachine();
  const haProxy = new HaProxy(machine, await machine.makeDirectory(), await machine.freePort());
  await haProxy.prepare(upstreams, mediaPaths);
  await haProxy.restart();
  return haProxy;
}
