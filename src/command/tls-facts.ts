import { once } from "node:events";
import { isIP } from "node:net";
import { checkServerIdentity, connect } from "node:tls";
import { IcapError, type IcapTls } from "../../icap/index.ts";
import { codeOf } from "../errors.ts";

export interface TlsFacts {
  /** Such as `TLSv1.3`. */
  readonly protocol: string;
  readonly cipher: string;
  /** Names of the server's certificate; as it came, not fit for a terminal. */
  readonly subject: string;
  readonly issuer: string;
  readonly validUntil: Date;
}

/**
 * What a TLS connection of its own to this service says of the server.
 * @param url the service's, with its port
 * @throws IcapError `connect_failed`, also for a certificate that can't be believed; the signal's reason.
 */
export async function tlsFacts(url: string, tls: IcapTls, signal: AbortSignal): Promise<TlsFacts> {
  const { hostname, port } = new URL(url);
  const host = hostname.replace(/^\[|\]$/g, "");
  const serverName = tls.serverName ?? host;
  const socket = connect({
    host,
    port: Number(port),
    checkServerIdentity: (_, certificate) => checkServerIdentity(serverName, certificate),
    minVersion: tls.minVersion ?? "TLSv1.2",
    ...(isIP(serverName) === 0 ? { servername: serverName.replace(/\.$/, "") } : {}),
    ...(tls.ca === undefined ? {} : { ca: tls.ca }),
    ...(tls.cert === undefined ? {} : { cert: tls.cert }),
    ...(tls.key === undefined ? {} : { key: tls.key }),
  });
  try {
    await once(socket, "secureConnect", { signal });
    const { subject, issuer, valid_to: validTo } = socket.getPeerCertificate();
    return {
      protocol: socket.getProtocol() ?? "unknown",
      cipher: socket.getCipher().name,
      subject: nameIn(subject),
      issuer: nameIn(issuer),
      validUntil: new Date(validTo),
    };
  } catch (error) {
    signal.throwIfAborted();
    throw new IcapError("connect_failed", `no TLS connection to ${host}:${port} (${codeOf(error) ?? "unknown reason"})`, { cause: error });
  } finally {
    socket.on("error", () => {});
    socket.destroy();
  }
}

function nameIn(subject: { readonly CN?: string | string[]; readonly O?: string | string[] } | undefined): string {
  return [subject?.CN ?? subject?.O ?? []].flat().join(", ").slice(0, 200);
}
