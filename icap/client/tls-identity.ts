import { X509Certificate, createPrivateKey } from "node:crypto";
import { isIP } from "node:net";
import { type PeerCertificate, type SecureContext, checkServerIdentity, createSecureContext } from "node:tls";
import { HOST_NAME, type Target } from "./target.ts";
import type { IcapTls } from "./types.ts";

/**
 * As whom a service's connections come and whom they believe; made once, so that all of them are the same. Sessions are never
 * resumed: each connection proves itself by its certificate.
 */
export interface TlsIdentity {
  readonly context: SecureContext;
  /** What is asked for by SNI; undefined for an address, which has none (RFC 6066 section 3). */
  readonly sni: string | undefined;
  /** What is wrong with a certificate that the authorities vouch for; undefined when it is for the right name or address. */
  check(certificate: PeerCertificate): Error | undefined;
}

const MIN_VERSIONS: readonly unknown[] = ["TLSv1.2", "TLSv1.3"] satisfies IcapTls["minVersion"][];
const CERTIFICATE = /-----BEGIN (TRUSTED |X509 )?CERTIFICATE-----[^-]*-----END \1CERTIFICATE-----/g;

/**
 * Without `ca`, those that Node.js trusts by default.
 * @throws TypeError for PEM that can't be used whole, a key without its certificate, or a name that is none.
 */
export function tlsIdentity(target: Target, { ca, cert, key, serverName = target.host, minVersion = "TLSv1.2" }: IcapTls): TlsIdentity {
  if (!MIN_VERSIONS.includes(minVersion)) throw new TypeError("tls.minVersion must be TLSv1.2 or TLSv1.3");
  const isAddress = isIP(serverName) !== 0;
  if (!isAddress && (serverName.length > 253 || !HOST_NAME.test(serverName)))
    throw new TypeError("tls.serverName must be a host name or an address");
  if (ca !== undefined) readCertificates("tls.ca", ca);
  if ((cert === undefined) !== (key === undefined)) throw new TypeError("tls.cert and tls.key go together");
  if (cert !== undefined && key !== undefined) checkPair(cert, key);
  return {
    context: makeContext({ ca, cert, key, minVersion }),
    sni: isAddress ? undefined : serverName.replace(/\.$/, ""),
    check(certificate) {
      if (checkServerIdentity(serverName, certificate) === undefined) return undefined;
      // Node's own error holds the certificate, and quotes it.
      return Object.assign(new Error("the server's certificate is for another name"), { code: "ERR_TLS_CERT_ALTNAME_INVALID" });
    },
  };
}

/** OpenSSL reads as many certificates as it can and ignores the rest without a word; here all must be good. */
function readCertificates(name: string, pem: string): X509Certificate[] {
  const blocks = pem.match(CERTIFICATE) ?? [];
  if (blocks.length === 0 || blocks.length !== pem.split("-----BEGIN ").length - 1) throw new TypeError(`${name} must be PEM certificates`);
  return blocks.map((block) => orTypeError(`${name} holds a certificate that can't be read`, () => new X509Certificate(block)));
}

function checkPair(cert: string, key: string): void {
  const [own] = readCertificates("tls.cert", cert);
  const privateKey = orTypeError("tls.key must be a private key in PEM, not encrypted", () => createPrivateKey(key));
  if (own?.checkPrivateKey(privateKey) !== true) throw new TypeError("tls.key must belong to the first certificate of tls.cert");
}

function makeContext({
  ca,
  cert,
  key,
  minVersion,
}: Record<"ca" | "cert" | "key", string | undefined> & Pick<IcapTls, "minVersion">): SecureContext {
  return orTypeError("tls can't be used", () => createSecureContext({ ca, cert, key, minVersion, maxVersion: "TLSv1.3" }));
}

function orTypeError<T>(message: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    const code = error instanceof Error && "code" in error ? `: ${String(error.code)}` : "";
    throw new TypeError(message + code, { cause: error });
  }
}
