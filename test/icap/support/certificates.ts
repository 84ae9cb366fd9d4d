import { readFileSync } from "node:fs";

const read = (name: string): string => readFileSync(new URL(`../../fixtures/tls/icap-${name}.pem`, import.meta.url), "utf8");
const pair = (name: string) => ({ cert: read(name), key: read(`${name}-key`) });

/** Made for tests, worth nothing elsewhere. All but the authority itself are signed by it, and valid from 2020 to 2120. */
export const certificates = {
  ca: read("ca"),
  /** For localhost, av.example.test, 127.0.0.1 and ::1. */
  server: pair("server"),
  /** The same, valid in January 2020 alone. */
  expired: { ...pair("server"), cert: read("expired") },
  /** Their subjects' common names are `client-a` and `client-b`. */
  clientA: pair("client-a"),
  clientB: pair("client-b"),
} as const;
