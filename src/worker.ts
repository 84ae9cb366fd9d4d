/** The composition root of one of several processes: a service whose limits, keys and records come from the primary that has started it. */
import { Channel } from "./cluster/channel.ts";
import { type Assignment, LIMITS, type PrimaryNews, type WorkerNews } from "./cluster/messages.ts";
import { onPrimaryGone, primaryPort } from "./cluster/processes.ts";
import { WorkerRecords } from "./cluster/records.ts";
import { type Service, openService } from "./gateway.ts";
import { type Logger, createLogger } from "./observability/log.ts";

export interface JoinedWorker {
  readonly log: Logger;
  /** Resolves when the primary is gone. */
  readonly abandoned: Promise<void>;
  /** Starts, and tells the primary so. @throws whatever keeps it from starting; the primary has been told that */
  serve(): Promise<Service>;
  /** Tells the primary what it has counted, before this process ends. Never rejects. */
  leave(service: Service): Promise<void>;
}

/** Milliseconds that last words may take. */
const FAREWELL_LIMIT = 1_000;

/**
 * Resolves when the primary has said what this process is to be.
 * @param version of this code
 * @returns undefined when there is no primary
 */
export async function joinPrimary(version: string): Promise<JoinedWorker | undefined> {
  const port = primaryPort();
  if (port === undefined) return undefined;
  const abandoned = new Promise<void>((resolve) => onPrimaryGone(resolve));
  const { promise: assigned, resolve: assign } = Promise.withResolvers<Assignment>();
  let service: Service | undefined;
  let records: WorkerRecords | undefined;
  const channel = new Channel(port, {
    answer(question) {
      if (question === "readiness") return service?.readiness();
      return question === "metrics" ? service?.metrics.snapshot() : undefined;
    },
    hear(message) {
      const news = message as PrimaryNews;
      if (news.news === "assignment") assign(news.assignment);
      else if (news.news === "hint") records?.hint(news);
      else records?.missed();
    },
    drained: () => tell({ news: "missed" }),
  });
  const tell = (news: WorkerNews): boolean => channel.tell(news);
  tell({ news: "ready" });
  const { config, version: wanted, ...place } = await assigned;
  const log = createLogger(config.log).child({ worker: place.number });
  const kept = new WorkerRecords({ channel, log });
  records = kept;

  const serve = async (): Promise<Service> => {
    try {
      if (version !== wanted) throw new Error(`version ${version} is installed, but ${wanted} is running: restart the gateway`);
      service = await openService(config, { log, worker: { ...place, records: kept } });
    } catch (error) {
      log.debug({ err: error }, "this worker can't start");
      tell({ news: "failed", reason: (error instanceof Error ? error.message : "unknown reason").slice(0, LIMITS.reason) });
      await channel.flush(FAREWELL_LIMIT);
      throw error;
    }
    tell({ news: "listening", address: service.address });
    return service;
  };
  const leave = async ({ metrics }: Service): Promise<void> => {
    // Plain data, though its type does not say so.
    tell({ news: "metrics", metrics: (await metrics.snapshot()) as unknown as Extract<WorkerNews, { news: "metrics" }>["metrics"] });
    await channel.flush(FAREWELL_LIMIT);
  };
  return { log, abandoned, serve, leave };
}
