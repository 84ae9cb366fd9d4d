/** Media that the gateway knows; the homeserver is asked each time, but for verdicts of encrypted media. */
import type { Group } from "../row.ts";
import { KIB, MIB } from "./sizes.ts";

const REPEATED = { connections: 32, media: 16, ceilings: ["homeserver"], probes: ["homeserver"] } as const;

export const repeated: Group = {
  name: "repeated",
  title: "Repeated, the homeserver being asked each time",
  rows: [
    { name: "repeated-10k", title: "download 10 KiB", endpoint: "download", size: 10 * KIB, ...REPEATED },
    { name: "repeated-1m", title: "download 1 MiB", endpoint: "download", size: MIB, ...REPEATED },
    { name: "repeated-encrypted-10k", title: "download_encrypted 10 KiB", endpoint: "download_encrypted", size: 10 * KIB, ...REPEATED },
    { name: "repeated-encrypted-1m", title: "download_encrypted 1 MiB", endpoint: "download_encrypted", size: MIB, ...REPEATED },
    { name: "repeated-thumbnail-10k", title: "thumbnail 10 KiB", endpoint: "thumbnail", size: 10 * KIB, ...REPEATED },
    { name: "repeated-scan", title: "scan", endpoint: "scan", size: 10 * KIB, ...REPEATED },
    { name: "repeated-scan-encrypted", title: "scan_encrypted", endpoint: "scan_encrypted", size: 10 * KIB, ...REPEATED },
    {
      name: "repeated-scan-encrypted-body",
      title: "scan_encrypted, encrypted_body",
      endpoint: "scan_encrypted",
      size: 10 * KIB,
      sealed: true,
      ...REPEATED,
    },
    {
      name: "repeated-encrypted-body-10k",
      title: "download_encrypted 10 KiB, encrypted_body",
      endpoint: "download_encrypted",
      size: 10 * KIB,
      sealed: true,
      ...REPEATED,
    },
  ],
};
