/** c-icap with clamd, which does the work; the bodies differ, or clamd would remember them. */
import type { Group } from "../row.ts";
import { KIB, MIB } from "./sizes.ts";

const REAL = {
  endpoint: "download",
  connections: 16,
  ceilings: ["homeserver", "icap"],
  gateway: {
    scanner: "real",
    // What clamd is set up for, however long it takes. Its size is not proven meanwhile, which costs seconds of its time; c-icap has 32 threads here.
    settings: { scan: { max_file_size: "100MiB", wait: "10m", timeout: "10m" } },
    service: { prove_size: false, max_connections: 20 },
  },
} as const;

const APART = { ...REAL, gateway: { ...REAL.gateway, scanner: "real-apart" } } as const;

export const realScanner: Group = {
  name: "real",
  title: "Cold, with c-icap and clamd",
  rows: [
    { name: "real-100k", title: "download 100 KiB", size: 100 * KIB, ...REAL },
    { name: "real-10m", title: "download 10 MiB", size: 10 * MIB, requests: 64, ...REAL },
    { name: "real-apart-100k", title: "download 100 KiB, the scanner on cores of its own", size: 100 * KIB, ...APART },
    { name: "real-apart-10m", title: "download 10 MiB, the scanner on cores of its own", size: 10 * MIB, requests: 64, ...APART },
  ],
};
