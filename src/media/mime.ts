/** What a file is, told from its first bytes, and whether a list of types means it. */
import { Worker } from "node:worker_threads";
import { GatewayError } from "../errors.ts";

/** A type of media as libmagic names it, in lower case, and the usual extension (no dot) for scanners that go by names. */
export interface DetectedType {
  readonly mime: string;
  readonly extension: string;
  /** Other names of the same type: those of other versions of libmagic and of file-type, and libmagic's own where more could be told. */
  readonly aliases?: readonly string[];
  /** Names that only more than the first bytes could tell, as of what is inside an OLE container. */
  readonly mayBe?: readonly string[];
}

/** How many bytes are looked at: enough for the mark of an ISO 9660 image, which lies behind 32 KiB that may hold anything. */
export const PREFIX_SIZE = 33 * 1024;

export interface TypeDetector extends AsyncDisposable {
  /**
   * The type of media that begins with these bytes (at most `PREFIX_SIZE` are looked at); what nobody knows is application/octet-stream.
   * @throws GatewayError `scanner_unavailable` when it could not be looked at: no type at all must not pass a block-list as an unknown one.
   */
  detect(prefix: Buffer): Promise<DetectedType>;
}

/** Whether an allow-list (names in lower case) names this type. */
export function isAllowed(type: DetectedType, allowed: ReadonlySet<string>): boolean {
  return allowed.has(type.mime) || (type.aliases ?? []).some((name) => allowed.has(name));
}

/** Whether a block-list (names in lower case) names this type, or one that it may turn out to be. */
export function isBlocked(type: DetectedType, blocked: ReadonlySet<string>): boolean {
  return isAllowed(type, blocked) || (type.mayBe ?? []).some((name) => blocked.has(name));
}

export interface TypeDetectorOptions {
  /** How long one detection may take once the worker is at it, in milliseconds. It takes 1 to 10, and 150 for bytes made to be slow. */
  readonly timeLimit?: number;
  /** How long the worker may take to start, in milliseconds. */
  readonly startLimit?: number;
  /** How many detections may wait. */
  readonly maxQueued?: number;
  /** The worker's module. */
  readonly worker?: URL;
}

/** Detects in a worker thread, which starts with the first detection and again after it died. */
export function createTypeDetector(options: TypeDetectorOptions = {}): TypeDetector {
  return new WorkerTypeDetector(options);
}

interface Job {
  readonly prefix: Buffer;
  readonly resolve: (type: DetectedType) => void;
  readonly reject: (error: GatewayError) => void;
}

/** The worker's module beside this one; built releases hold both as `.js`. */
const WORKER = new URL(import.meta.url.endsWith(".ts") ? "./mime-worker.ts" : "./mime-worker.js", import.meta.url);

/** The worker gets one prefix at a time, so that it is known which one made it die, and only that one fails. */
class WorkerTypeDetector implements TypeDetector {
  readonly #timeLimit: number;
  readonly #startLimit: number;
  readonly #maxQueued: number;
  readonly #module: URL;
  readonly #queue: Job[] = [];
  #worker: Worker | undefined;
  #ready = false;
  #current: Job | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;
  readonly #ending = new Set<Promise<number>>();

  constructor({ timeLimit = 5_000, startLimit = 30_000, maxQueued = 1024, worker = WORKER }: TypeDetectorOptions) {
    this.#timeLimit = timeLimit;
    this.#startLimit = startLimit;
    this.#maxQueued = maxQueued;
    this.#module = worker;
  }

  detect(prefix: Buffer): Promise<DetectedType> {
    if (this.#closed) return Promise.reject(unavailable("type detection has ended"));
    if (this.#queue.length >= this.#maxQueued) return Promise.reject(unavailable("too many files wait for their type"));
    return new Promise((resolve, reject) => {
      this.#queue.push({ prefix, resolve, reject });
      this.#next();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#stop();
    this.#rejectAll(unavailable("type detection has ended"));
    await Promise.all(this.#ending);
  }

  #next(): void {
    if (this.#current !== undefined) return;
    if (this.#queue.length === 0) {
      this.#worker?.unref();
      return;
    }
    const worker = (this.#worker ??= this.#start());
    worker.ref();
    if (!this.#ready) return;
    const job = this.#queue.shift();
    if (job === undefined) return;
    this.#current = job;
    this.#arm(this.#timeLimit, "its type could not be told in time");
    // A copy of its own, or the whole memory that the prefix is a slice of would be sent.
    const bytes = Uint8Array.from(job.prefix.subarray(0, PREFIX_SIZE));
    worker.postMessage(bytes, [bytes.buffer]);
  }

  #start(): Worker {
    const worker = new Worker(this.#module, {
      name: "mime",
      env: {},
      resourceLimits: { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 16 },
    });
    this.#ready = false;
    this.#arm(this.#startLimit, "the type detection's worker did not start in time");
    worker.on("message", (message: DetectedType | "ready") => {
      if (this.#worker === worker) this.#answered(message);
    });
    worker.on("error", (error) => {
      if (this.#worker === worker) this.#failed(unavailable("the type detection's worker failed", error));
    });
    worker.on("exit", (code) => {
      if (this.#worker === worker) this.#failed(unavailable(`the type detection's worker ended with ${code}`));
    });
    return worker;
  }

  #answered(message: DetectedType | "ready"): void {
    clearTimeout(this.#timer);
    if (message === "ready") this.#ready = true;
    else {
      this.#current?.resolve(message);
      this.#current = undefined;
    }
    this.#next();
  }

  /** A worker that fails over one file is replaced for the others; one that does not even start fails all who wait. */
  #failed(error: GatewayError): void {
    const started = this.#ready;
    this.#stop();
    if (!started) this.#rejectAll(error);
    this.#current?.reject(error);
    this.#current = undefined;
    this.#next();
  }

  #arm(limit: number, detail: string): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#failed(unavailable(detail)), limit);
  }

  #stop(): void {
    clearTimeout(this.#timer);
    const worker = this.#worker;
    this.#worker = undefined;
    this.#ready = false;
    if (worker === undefined) return;
    const ending = worker.terminate();
    this.#ending.add(ending);
    void ending.finally(() => this.#ending.delete(ending));
  }

  #rejectAll(error: GatewayError): void {
    this.#current?.reject(error);
    this.#current = undefined;
    for (const job of this.#queue.splice(0)) job.reject(error);
  }
}

function unavailable(detail: string, cause?: unknown): GatewayError {
  return new GatewayError("scanner_unavailable", { detail, cause });
}
