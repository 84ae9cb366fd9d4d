import { once } from "node:events";
import { connect } from "node:tls";
import { testCertificate } from "../tls.ts";
import { Peer } from "./peer.ts";

/** A reverse proxy with the test certificate. */
export abstract class TlsPeer extends Peer {
  get url(): string {
    return `https://${this.host}:${this.port}`;
  }

  protected async ready(): Promise<void> {
    const socket = connect({ port: this.port, host: this.host, ca: testCertificate.cert });
    await once(socket, "secureConnect");
    socket.destroy();
  }
}
