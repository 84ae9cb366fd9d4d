import { readFileSync } from "node:fs";
import { getCACertificates, setDefaultCACertificates } from "node:tls";

const read = (name: string): string => readFileSync(new URL(`../fixtures/tls/${name}`, import.meta.url), "utf8");

/** A self-signed certificate for example.test, *.example.test and 127.0.0.1, and its key; made for tests, worth nothing elsewhere. */
export const testCertificate = { cert: read("cert.pem"), key: read("key.pem") };

/** Has every TLS client of this process believe the test certificate. */
export function trustTestCertificate(): void {
  setDefaultCACertificates([...getCACertificates("default"), testCertificate.cert]);
}
