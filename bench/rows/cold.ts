/** Media that nobody has asked for before: each is downloaded, scanned and handed on. */
import type { Group } from "../row.ts";
import { KIB, MIB } from "./sizes.ts";

const COLD = { connections: 32, ceilings: ["homeserver", "icap"], probes: ["homeserver"] } as const;

export const cold: Group = {
  name: "cold",
  title: "Cold, with a scanner that answers at once",
  rows: [
    { name: "cold-10k", title: "download 10 KiB", endpoint: "download", size: 10 * KIB, ...COLD },
    { name: "cold-1m", title: "download 1 MiB", endpoint: "download", size: MIB, ...COLD },
    { name: "cold-encrypted-10k", title: "download_encrypted 10 KiB", endpoint: "download_encrypted", size: 10 * KIB, ...COLD },
    { name: "cold-encrypted-1m", title: "download_encrypted 1 MiB", endpoint: "download_encrypted", size: MIB, ...COLD },
    { name: "cold-thumbnail-10k", title: "thumbnail 10 KiB", endpoint: "thumbnail", size: 10 * KIB, ...COLD },
    { name: "cold-scan-10k", title: "scan 10 KiB", endpoint: "scan", size: 10 * KIB, ...COLD },
  ],
};
