/** Media that fits into no buffer, and many clients for one. */
import type { Group } from "../row.ts";
import { MIB } from "./sizes.ts";

/** However long a busy machine takes; the figures tell. */
const PATIENT = { settings: { scan: { wait: "10m", timeout: "10m" } } };
const SIXTEEN = { size: 200 * MIB, connections: 16, requests: 16, ceilings: ["homeserver", "icap"], gateway: PATIENT } as const;

export const large: Group = {
  name: "large",
  title: "Large media, and crowds",
  rows: [
    { name: "large-16x200m", title: "download 200 MiB, cold, 16 at once", endpoint: "download", ...SIXTEEN },
    { name: "large-encrypted-16x200m", title: "download_encrypted 200 MiB, cold, 16 at once", endpoint: "download_encrypted", ...SIXTEEN },
    {
      name: "large-known",
      title: "download 200 MiB, known to be clean",
      endpoint: "download",
      size: 200 * MIB,
      media: 1,
      known: true,
      warmed: true,
      connections: 1,
      requests: 20,
      ceilings: ["homeserver"],
    },
    {
      // The scanner takes its time, so that all of them are there before it says anything.
      name: "large-crowd",
      title: "2000 clients at once for one cold media of 5 MiB",
      gateway: { scanner: "slow" },
      endpoint: "download",
      size: 5 * MIB,
      media: 1,
      connections: 2000,
      requests: 2000,
      ceilings: ["homeserver"],
      probes: ["scans"],
    },
  ],
};
