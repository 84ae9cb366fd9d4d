/**
 * The workers of a primary: started together, and each replaced when it dies. One that dies young is replaced later each time; one that can't even
 * start, again and again, is the end of all, for whoever looks after this process to see.
 */
import { Channel, type Port } from "./channel.ts";
import { type PrimaryNews, type WorkerNews, workerNews } from "./messages.ts";

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** A worker's process; of `node:cluster`, or a test's. */
export interface WorkerProcess extends Port {
  readonly pid: number | undefined;
  kill(signal: "SIGTERM" | "SIGKILL"): void;
  /** Called once: how it ended, in words, and whether it ended in order. */
  ended(listener: (how: string, orderly: boolean) => void): void;
}

export interface CrewOptions {
  readonly size: number;
  /** @throws the system's error */
  readonly fork: () => WorkerProcess;
  readonly assign: (worker: { readonly number: number; readonly replaces: boolean }) => PrimaryNews;
  /** A worker asks for something. What this returns, or resolves with, is its answer. */
  readonly answer: (question: unknown, worker: Worker) => unknown;
  /** A worker tells something that is not about its own start and end. */
  readonly hear: (news: WorkerNews, worker: Worker) => void;
  /** It is gone. */
  readonly gone: (worker: Worker) => void;
  readonly log: {
    info(details: object, message: string): void;
    warn(details: object, message: string): void;
    error(details: object, message: string): void;
  };
}

/** One that runs. */
export interface Worker {
  readonly number: number;
  readonly channel: Channel;
  readonly process: WorkerProcess;
  /** Undefined until it serves. */
  address: Address | undefined;
}

/** Milliseconds from one death to the next start: none, then twice as long each time. */
const FIRST_PAUSE = 1_000;
const LONGEST_PAUSE = 30_000;
/** Milliseconds of service after which a death is no longer one of a row. */
const STEADY = 60_000;
/** Starts of one worker in a row that fail. With their pauses they take about a minute. */
const MAX_FAILED_STARTS = 8;

/** A worker can't start. */
export class WorkerStartError extends Error {
  override readonly name = "WorkerStartError";
}

/** Where a worker belongs, whatever process it is at the moment. */
interface Place {
  readonly number: number;
  worker: Worker | undefined;
  /** Why it could not start, in its own words. */
  reason: string | undefined;
  problem: string | undefined;
  deaths: number;
  failedStarts: number;
  servesSince: number;
  pause: NodeJS.Timeout | undefined;
}

export class Crew {
  readonly #options: CrewOptions;
  readonly #places: readonly Place[];
  readonly #started = Promise.withResolvers<Address>();
  readonly #failed = Promise.withResolvers<WorkerStartError>();
  readonly #stopped = Promise.withResolvers<boolean>();
  #phase: "starting" | "serving" | "stopping" = "starting";
  #orderly = true;
  #replaced = 0;

  constructor(options: CrewOptions) {
    this.#options = options;
    this.#places = Array.from({ length: options.size }, (_, index) => ({
      number: index + 1,
      worker: undefined,
      reason: undefined,
      problem: undefined,
      deaths: 0,
      failedStarts: 0,
      servesSince: Infinity,
      pause: undefined,
    }));
    this.#started.promise.catch(() => undefined);
  }

  /** Resolves when all of them listen. @throws WorkerStartError as soon as one of them can't. To be called once. */
  start(): Promise<Address> {
    for (const place of this.#places) this.#fork(place);
    return this.#started.promise;
  }

  /** Resolves if ever a worker has failed to start too often. */
  get failed(): Promise<WorkerStartError> {
    return this.#failed.promise;
  }

  /** Those that serve. */
  get serving(): readonly Worker[] {
    return this.#running.filter(({ address }) => address !== undefined);
  }

  /** What is wrong with those that don't. */
  get problems(): readonly string[] {
    return this.#places.flatMap(({ problem }) => problem ?? []);
  }

  /** How many have died and were replaced. */
  get replaced(): number {
    return this.#replaced;
  }

  /** To all of them, whatever they are at. */
  tell(news: PrimaryNews): void {
    for (const { channel } of this.#running) channel.tell(news);
  }

  /** They finish what they are at. Resolves when all are gone: whether each of them ended in order. */
  stop(): Promise<boolean> {
    if (this.#phase !== "stopping") {
      this.#phase = "stopping";
      for (const { pause } of this.#places) clearTimeout(pause);
      for (const worker of this.#running) worker.process.kill("SIGTERM");
      this.#checkStopped();
    }
    return this.#stopped.promise;
  }

  /** At once. */
  kill(): void {
    for (const { process } of this.#running) process.kill("SIGKILL");
  }

  get #running(): readonly Worker[] {
    return this.#places.flatMap(({ worker }) => worker ?? []);
  }

  #fork(place: Place): void {
    place.reason = undefined;
    try {
      const child = this.#options.fork();
      const channel: Channel = new Channel(child, {
        answer: (question) => this.#options.answer(question, worker),
        hear: (news) => this.#hear(place, worker, news),
        drained: () => channel.tell({ news: "missed" } satisfies PrimaryNews),
      });
      const worker: Worker = { number: place.number, channel, process: child, address: undefined };
      place.worker = worker;
      child.ended((how, orderly) => this.#ended(place, worker, how, orderly));
    } catch (error) {
      this.#died(place, `could not be started (${error instanceof Error ? error.message : "unknown reason"})`, false);
    }
  }

  #hear(place: Place, worker: Worker, message: unknown): void {
    const { data: news } = workerNews.safeParse(message);
    if (news === undefined || place.worker !== worker) return;
    if (news.news === "ready") {
      worker.channel.tell(this.#options.assign({ number: place.number, replaces: this.#phase === "serving" }));
    } else if (news.news === "failed") place.reason = news.reason;
    else if (news.news === "listening") this.#listens(place, worker, news.address);
    else this.#options.hear(news, worker);
  }

  #listens(place: Place, worker: Worker, address: Address): void {
    worker.address = address;
    place.problem = undefined;
    place.failedStarts = 0;
    place.servesSince = performance.now();
    this.#options.log.info({ worker: place.number, pid: worker.process.pid }, "a worker serves");
    if (this.#phase !== "starting" || this.serving.length < this.#places.length) return;
    this.#phase = "serving";
    this.#started.resolve(address);
  }

  #ended(place: Place, worker: Worker, how: string, orderly: boolean): void {
    if (place.worker !== worker) return;
    place.worker = undefined;
    this.#options.gone(worker);
    this.#died(place, how, orderly, worker);
  }

  #died(place: Place, how: string, orderly: boolean, worker?: Worker): void {
    const { number, reason } = place;
    const served = worker?.address !== undefined;
    if (this.#phase === "stopping") {
      // Whoever had not begun had nothing to finish.
      this.#orderly &&= orderly || !served;
      if (!orderly && served) this.#options.log.error({ worker: number, pid: worker.process.pid }, `a worker ${how}`);
      return this.#checkStopped();
    }
    if (this.#phase === "starting") return this.#started.reject(new WorkerStartError(reason ?? `worker ${number} ${how}`));
    place.failedStarts += served ? 0 : 1;
    if (place.failedStarts >= MAX_FAILED_STARTS) {
      const why = `worker ${number} has failed to start ${place.failedStarts} times: ${reason ?? `it ${how}`}`;
      return this.#failed.resolve(new WorkerStartError(why));
    }
    this.#replace(place, { how: reason ?? how, pid: worker?.process.pid });
  }

  #replace(place: Place, { how, pid }: { readonly how: string; readonly pid: number | undefined }): void {
    place.deaths = performance.now() - place.servesSince >= STEADY ? 1 : place.deaths + 1;
    place.servesSince = Infinity;
    const pause = place.deaths === 1 ? 0 : Math.min(FIRST_PAUSE * 2 ** (place.deaths - 2), LONGEST_PAUSE);
    place.problem = `worker ${place.number}: ${how}; it is being replaced`;
    this.#options.log.error({ worker: place.number, pid, why: how, pause }, "a worker is gone; it is replaced");
    this.#replaced += 1;
    place.pause = setTimeout(() => this.#fork(place), pause);
  }

  #checkStopped(): void {
    if (this.#running.length === 0) this.#stopped.resolve(this.#orderly);
  }
}
