/** The composition root of a gateway of several processes, in the one that answers no request itself: it starts, watches and sums up the others. */
import { randomUUID } from "node:crypto";
import { type Address, Crew, type Worker } from "./cluster/crew.ts";
import { type Assignment, type PrimaryQuestion, recordQuestion } from "./cluster/messages.ts";
import { forkWorker } from "./cluster/processes.ts";
import { type WorkerReadiness, readinessOfAll } from "./cluster/readiness.ts";
import { RecordStore } from "./cluster/record-store.ts";
import type { Config } from "./config/load.ts";
import { shareOf } from "./config/worker-shares.ts";
import { createAdminApp } from "./http/admin.ts";
import { newPseudonym } from "./http/not-from-itself.ts";
import { listen } from "./http/server.ts";
import type { Logger } from "./observability/log.ts";
import type { MetricsSnapshot } from "./observability/metrics.ts";
import { MetricsOfWorkers } from "./observability/metrics-of-workers.ts";
import { openRequestKeys } from "./stores.ts";

export interface PrimaryOptions {
  readonly log: Logger;
  /** Of this code; workers that have another one by now can't be understood. */
  readonly version: string;
}

export interface Primary extends AsyncDisposable {
  readonly address: Address;
  readonly adminAddress: Address;
  /** Resolves if a worker can't be replaced, however often that is tried. */
  readonly failed: Promise<Error>;
  /** Workers finish what they are at. Returns whether all of them ended in order. */
  shutdown(): Promise<boolean>;
}

/** Milliseconds that a worker has for an answer; for numbers more, for it is better to wait than to show old ones. */
const READINESS_LIMIT = 1_000;
const METRICS_LIMIT = 2_000;

/**
 * Starts all workers; resolves when they and the second listener listen.
 * @throws whatever keeps one of them from starting; nothing is left running then.
 */
export async function createPrimary(config: Config, { log, version }: PrimaryOptions): Promise<Primary> {
  await using started = new AsyncDisposableStack();
  // Made here if it is not there yet, so that workers can't make one each; and read once, so that a later one has the same.
  const keys = started.adopt(await openRequestKeys(config), (open) => open.free());
  for (const warning of keys.warnings) log.warn(warning);
  const size = config.web.workers;
  const ofAll = { group: randomUUID(), pseudonym: newPseudonym(), version };
  const store = new RecordStore({ maxEntries: config.result_cache.max_size });
  const metrics = new MetricsOfWorkers(() => ({ wanted: size, serving: crew.serving.length, replaced: crew.replaced }));
  const crew = new Crew({
    size,
    fork: forkWorker,
    assign: ({ number, replaces }) => {
      const assignment: Assignment = { ...ofAll, number, replaces, config: shareOf(config, number), secrets: keys.secrets() };
      return { news: "assignment", assignment };
    },
    answer: (question, worker) => store.answer(recordQuestion.parse(question), worker),
    hear: (news, worker) => {
      if (news.news === "hint" || news.news === "missed") crew.tell(news);
      if (news.news === "metrics") metrics.keep(worker, news.metrics as unknown as MetricsSnapshot);
    },
    gone: (worker) => {
      store.gone(worker);
      metrics.gone(worker);
    },
    log,
  });
  // However this process ends, no worker is left.
  const kill = (): void => crew.kill();
  process.on("exit", kill);
  started.defer(() => void process.off("exit", kill));
  started.defer(() => {
    crew.kill();
    return crew.stop().then(() => undefined);
  });

  let closing = false;
  const readiness = async (): Promise<WorkerReadiness> => {
    if (closing) return SHUTTING_DOWN;
    const workers = await Promise.all(
      crew.serving.map(async (worker) => ({
        number: worker.number,
        said: await ask<WorkerReadiness>(worker, "readiness", READINESS_LIMIT),
      })),
    );
    return readinessOfAll(workers, crew.problems);
  };
  const render = async (): Promise<string> => {
    const current = crew.serving.map(async (worker) => {
      const snapshot = await ask<MetricsSnapshot>(worker, "metrics", METRICS_LIMIT);
      if (snapshot !== undefined && crew.serving.includes(worker)) metrics.keep(worker, snapshot);
    });
    await Promise.all(current);
    return metrics.render();
  };
  const app = createAdminApp({
    readiness: oneAtATime(readiness),
    metrics: { contentType: metrics.contentType, render: oneAtATime(render) },
  });
  const adminListener = started.adopt(await listen(app, config.admin), (open) => open.close(AbortSignal.abort()));
  const address = await crew.start();

  const parts = started.move();
  let ended: Promise<boolean> | undefined;
  const end = async (): Promise<boolean> => {
    closing = true;
    const orderly = await crew.stop();
    await parts.disposeAsync();
    return orderly;
  };
  const shutdown = (): Promise<boolean> => (ended ??= end());
  const dispose = async (): Promise<void> => void (await shutdown());
  return { address, adminAddress: adminListener.address, failed: crew.failed, shutdown, [Symbol.asyncDispose]: dispose };
}

const SHUTTING_DOWN: WorkerReadiness = { ready: false, degraded: false, problems: ["shutting down"] };

/** Workers run this very code: what they answer is not looked at any closer. */
async function ask<Answer>(worker: Worker, question: PrimaryQuestion, limit: number): Promise<Answer | undefined> {
  return (await worker.channel.ask(question, limit)) as Answer | undefined;
}

/** Who asks while it is under way gets the same. */
function oneAtATime<T>(work: () => Promise<T>): () => Promise<T> {
  let current: Promise<T> | undefined;
  return () =>
    (current ??= work().finally(() => {
      current = undefined;
    }));
}
