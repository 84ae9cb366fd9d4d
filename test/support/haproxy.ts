/** A real HAProxy with the configuration that docs/deployment.md gives to operators: only ports and certificate are the test's own. */
import { blockOf, type MediaMark, type MediaPaths, marksOf, replaced, type Upstreams, withMediaPart } from "./deployment.ts";
import { startLocalMachine } from "./peers/local-machine.ts";
import { TlsPeer } from "./peers/tls-peer.ts";
import { testCertificate } from "./tls.ts";

class HaProxy extends TlsPeer {
  protected readonly name = "HAProxy";

  async prepare({ gateway, synapse }: Upstreams, marks: readonly MediaMark[]): Promise<void> {
    const text = replaced(await withMediaPart("haproxy", await blockOf("haproxy", "frontend"), marks), [
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
export async function startHaProxy(
  upstreams: Upstreams,
  mediaPaths: MediaPaths,
  marks = marksOf(mediaPaths, upstreams.scansUploads ?? false),
): Promise<TlsPeer> {
  const machine = startLocalMachine();
  const haProxy = new HaProxy(machine, await machine.makeDirectory(), await machine.freePort());
  await haProxy.prepare(upstreams, marks);
  await haProxy.restart();
  return haProxy;
}
