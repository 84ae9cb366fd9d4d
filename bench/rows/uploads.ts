/** Files that clients send: each is scanned, and sent on to the homeserver, or only scanned. */
import type { Group } from "../row.ts";
import { KIB, MIB } from "./sizes.ts";

const UPLOAD = {
  endpoint: "upload",
  gateway: { settings: { upload: { enabled: true } } },
  connections: 32,
  ceilings: ["homeserver", "icap"],
  probes: ["homeserver"],
} as const;

export const uploads: Group = {
  name: "uploads",
  title: "Uploads, with a scanner that answers at once",
  rows: [
    { name: "upload-10k", title: "upload 10 KiB", size: 10 * KIB, ...UPLOAD },
    { name: "upload-1m", title: "upload 1 MiB", size: MIB, ...UPLOAD },
    { name: "upload-scan-file-10k", title: "scan_file 10 KiB", size: 10 * KIB, ...UPLOAD, endpoint: "scan_file", ceilings: [] },
  ],
};
