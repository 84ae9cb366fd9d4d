/** The gateway's process by itself. */
import { setTimeout as sleep } from "node:timers/promises";
import { usageOf } from "../process-tree.ts";
import type { Group } from "../row.ts";

/** Milliseconds until whatever a start leaves behind is done. */
const SETTLED = 2000;

export const ownProcess: Group = {
  name: "process",
  title: "The process by itself",
  rows: [
    {
      name: "process-start",
      title: "start to ready, with c-icap and clamd, canaries included",
      gateway: { scanner: "real", settings: { scan: { max_file_size: "100MiB" } } },
      measure: async (stage, setup) => {
        await using started = await stage.startGateways(setup);
        return { milliseconds: started.gateways[0]?.readyAfter ?? Number.NaN };
      },
    },
    {
      name: "process-idle",
      title: "memory when idle",
      gateway: {},
      measure: async (stage, setup) => {
        await using started = await stage.startGateways(setup);
        await sleep(SETTLED);
        const { rss, peak } = await usageOf(started.gateways[0]?.pid ?? 0);
        return { "MB, RSS": rss / 1e6, "MB, peak RSS of the start": peak / 1e6 };
      },
    },
  ],
};
