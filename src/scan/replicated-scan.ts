/** One scan by a service that has replicas: whom to ask, whom instead, and when to ask a second one as well. */
import { GatewayError } from "../errors.ts";
import { LinkedController } from "./deadline.ts";
import type { Replica, ReplicaAnswer } from "./icap-replica.ts";
import type { Standing } from "./proof.ts";
import { Patience } from "./replica-patience.ts";
import type { ScanSubject, ScanVerdict } from "./scanner.ts";

export interface ReplicatedScanOptions {
  readonly replicas: readonly Replica[];
  readonly subject: ScanSubject;
  readonly signal: AbortSignal;
  /** Milliseconds that a replica may keep media of this size waiting before another one that has nothing to do is asked as well. */
  readonly patience: (size: number) => number;
  readonly clock: () => number;
}

/** How often one replica is asked; once more each time that it has proven itself anew in the meantime. */
const TRIES = 3;

interface Tried {
  times: number;
  /** It failed under this standing, and so is asked again under a new one only. */
  under: Standing | undefined;
  /** Why it had no verdict although it stood; another one's verdict proves that it was not the bytes. */
  failure: string | undefined;
}

/** One scan that the first of two may win. */
interface Race {
  readonly first: Replica;
  /** By the clock. */
  readonly since: number;
  /** Ends the scan of the one that lost; undefined where there is one replica alone. */
  readonly over: LinkedController | undefined;
  second: Promise<void> | undefined;
  verdict: ScanVerdict | undefined;
  readonly failures: unknown[];
}

export class ReplicatedScan {
  readonly #options: ReplicatedScanOptions;
  readonly #tried = new Map<Replica, Tried>();
  readonly #failures = new Set<string>();
  /** The greatest limit of those that are not proven to scan as much. */
  #beyond: number | undefined;

  /** One of them said something that could not be read. */
  #unclear = false;

  constructor(options: ReplicatedScanOptions) {
    this.#options = options;
  }

  /**
   * @throws GatewayError `beyond_proof` when the media is larger than one of those asked is proven to scan, and none had a verdict;
   *   `unclear_verdict` when the answer of one could not be read; `scanner_unavailable` when none had a verdict for other reasons; whatever the subject throws; the signal's reason.
   */
  async run(): Promise<ScanVerdict> {
    for (;;) {
      const replica = this.#next() ?? (await this.#firstRenewed());
      if (replica === undefined) throw this.#failure();
      const verdict = await this.#ask(replica);
      if (verdict !== undefined) return verdict;
    }
  }

  /** The least busy one that stands, and was not asked under this standing. */
  #next(): Replica | undefined {
    let best: Replica | undefined;
    for (const replica of this.#options.replicas) {
      if (this.#mayAsk(replica) && (best === undefined || replica.load < best.load)) best = replica;
    }
    return best;
  }

  #mayAsk(replica: Replica): boolean {
    const { standing } = replica;
    const tried = this.#tried.get(replica);
    return standing !== undefined && (tried === undefined || (tried.times < TRIES && standing !== tried.under));
  }

  /**
   * Asks this one, and a second one too as soon as the first has kept the scan waiting for too long. The first verdict counts; the other
   * scan is ended, and neither reads the subject any more when this settles.
   */
  async #ask(first: Replica): Promise<ScanVerdict | undefined> {
    const { replicas, subject, signal, patience, clock } = this.#options;
    // Where there is nobody else, nobody is quicker.
    const over = replicas.length > 1 ? new LinkedController(signal) : undefined;
    const race: Race = { first, since: clock(), over, second: undefined, verdict: undefined, failures: [] };
    const waiting = new Patience(patience(subject.size), () => {
      first.keepsWaiting();
      const other = this.#next();
      if (other?.hasRoom !== true) return false;
      race.second = this.#enter(race, other);
      return true;
    });
    // Neither of them rejects, so what is held here is let go of without `finally` or `using`.
    await this.#enter(race, first, waiting);
    waiting[Symbol.dispose]();
    if (race.second !== undefined) await race.second;
    over?.[Symbol.dispose]();
    if (race.verdict !== undefined) return race.verdict;
    for (const failure of race.failures) throw failure;
    return undefined;
  }

  /** Never rejects. */
  async #enter(race: Race, replica: Replica, waiting?: Patience): Promise<void> {
    const tried = this.#tried.get(replica) ?? { times: 0, under: undefined, failure: undefined };
    this.#tried.set(replica, tried);
    tried.times += 1;
    tried.under = replica.standing;
    const { subject, signal } = this.#options;
    try {
      const answer = await replica.ask(subject, waiting, race.over?.signal ?? signal);
      this.#note(replica, tried, answer);
      if (answer.kind !== "verdict") return;
      if (race.verdict !== undefined) return await disposeOf(answer.verdict);
      race.verdict = answer.verdict;
      if (replica !== race.first) race.first.outrun(race.since);
      if (race.second !== undefined) race.over?.abort(new Error("another replica was quicker"));
    } catch (error) {
      race.failures.push(error);
    }
  }

  #note(replica: Replica, tried: Tried, answer: ReplicaAnswer): void {
    switch (answer.kind) {
      case "verdict":
        replica.succeeded();
        this.#blameOthers(replica);
        break;
      case "beyond":
        this.#beyond = Math.max(this.#beyond ?? 0, answer.limit);
        break;
      case "unclear":
      case "failed":
        this.#unclear ||= answer.kind === "unclear";
        tried.failure = answer.why;
        this.#failures.add(answer.why);
        break;
      case "busy":
      case "unproven":
        this.#failures.add(answer.why);
    }
  }

  /** Bytes that no replica can scan say nothing of any of them: one hostile file would suspend them all. */
  #blameOthers(scanned: Replica): void {
    for (const [replica, tried] of this.#tried) {
      if (replica !== scanned && tried.failure !== undefined) replica.outdone(tried.failure);
      tried.failure = undefined;
    }
  }

  /** The first to prove itself now of those that may still be asked, if any does; none waits for another. @throws the signal's reason. */
  async #firstRenewed(): Promise<Replica | undefined> {
    const { replicas, signal } = this.#options;
    const needed = replicas.every(({ standing }) => standing === undefined);
    const left = replicas.filter((replica) => replica.standing === undefined && (this.#tried.get(replica)?.times ?? 0) < TRIES);
    const renewals = left.map(async (replica) => {
      await replica.renew(signal, { needed });
      if (!this.#mayAsk(replica)) throw new Error(replica.problem);
      return replica;
    });
    try {
      return await Promise.any(renewals);
    } catch {
      signal.throwIfAborted();
      return undefined;
    }
  }

  #failure(): GatewayError {
    const { replicas, subject } = this.#options;
    for (const replica of replicas) if (replica.standing === undefined) this.#failures.add(replica.problem);
    const detail = [...this.#failures].join("; ");
    if (this.#beyond === undefined) return new GatewayError(this.#unclear ? "unclear_verdict" : "scanner_unavailable", { detail });
    const limit = `${subject.size} bytes, and the service is proven to scan ${this.#beyond}`;
    return new GatewayError("beyond_proof", { detail: detail === "" ? limit : `${limit}; ${detail}` });
  }
}

async function disposeOf(verdict: ScanVerdict): Promise<void> {
  if (verdict.outcome === "modified") await verdict.replacement?.[Symbol.asyncDispose]();
}
