/** A real Caddy with the configuration that docs/deployment.md gives to operators: only ports and certificate are the test's own. */
import { blockOf, type MediaMark, type MediaPaths, marksOf, replaced, TLS, type Upstreams, withMediaPart } from "./deployment.ts";
import { startLocalMachine } from "./peers/local-machine.ts";
import { TlsPeer } from "./peers/tls-peer.ts";

class Caddy extends TlsPeer {
  protected readonly name = "Caddy";

  async prepare({ gateway, synapse }: Upstreams, marks: readonly MediaMark[]): Promise<void> {
    const block = await withMediaPart("caddyfile", await blockOf("caddyfile", "matrix.example.org {"), marks);
    const text = replaced(block, [
      ["matrix.example.org {", `https://${this.at.listen}:${this.at.inside} {\n\ttls ${TLS}cert.pem ${TLS}key.pem`],
    ]);
    const upstreams = text.replaceAll("127.0.0.1:8080", new URL(gateway).host).replaceAll("127.0.0.1:8008", new URL(synapse).host);
    // HTTP/3 would want the UDP port as well.
    await this.machine.write(
      `${this.directory}/Caddyfile`,
      `{\n\tadmin off\n\tauto_https disable_redirects\n\tservers {\n\t\tprotocols h1 h2\n\t}\n}\n${upstreams}`,
    );
  }

  protected command(): readonly string[] {
    const home = `HOME=${this.directory}`;
    return [
      "env",
      home,
      `XDG_DATA_HOME=${this.directory}`,
      "caddy",
      "run",
      "--config",
      `${this.directory}/Caddyfile`,
      "--adapter",
      "caddyfile",
    ];
  }
}

/** @throws Error that says what is missing, or with the end of Caddy's log */
export async function startCaddy(
  upstreams: Upstreams,
  mediaPaths: MediaPaths,
  marks = marksOf(mediaPaths, upstreams.scansUploads ?? false),
): Promise<TlsPeer> {
  const machine = startLocalMachine();
  const caddy = new Caddy(machine, await machine.makeDirectory(), await machine.freePort());
  await caddy.prepare(upstreams, marks);
  await caddy.restart();
  return caddy;
}
