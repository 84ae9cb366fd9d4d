/**
 * Up to which size a service scans what it is sent. A scanner that stops at its own limit answers as if the rest were clean, so canaries
 * that are padded to a size, EICAR at their end, show what it really looks at.
 */
import { waitFor } from "./deadline.ts";
import { Doubts } from "./doubts.ts";
import { type LargeCanary, largeCanary, MAX_CANARY_SIZE, MIN_CANARY_SIZE } from "./large-canary.ts";
import type { CanaryAnswer } from "./proof.ts";
import type { KeptOutcome, Stamp } from "./scanner.ts";
import { recallOrLease, type SharedProof, type SharedProofs } from "./shared-proofs.ts";
import { ASSUMED_SIZE, type Attempt, searchSize } from "./size-search.ts";
import { sizeAdvice } from "./size-advice.ts";

export type { SharedProof, SharedProofs };

export interface SizeProofOptions {
  /** As logs and readiness name the service. */
  readonly name: string;
  /** What is to be scanned: `scan.max_file_size`, bytes. */
  readonly maxSize: number;
  /** Milliseconds for one canary. */
  readonly timeout: number;
  /** Milliseconds from one proof to the next. */
  readonly interval: number;
  /** May reject; that is `unreachable`. */
  readonly send: (canary: LargeCanary, signal: AbortSignal) => Promise<CanaryAnswer>;
  /** `key` names the service, as all instances do. */
  readonly shared?: { readonly proofs: SharedProofs; readonly key: string };
  readonly log: SizeProofLog;
  /** Milliseconds since the epoch, as in stamps. */
  readonly clock: () => number;
}

export interface SizeProofLog {
  /** Once for each change. `size` is what the service is proven to scan, `wanted` what it should; `advice` where it does not. */
  sizeProven(service: string, tag: string, size: number, wanted: number, advice?: string): void;
}

/** What is known of one tag. */
interface Known extends SharedProof {
  /** Why it is an assumption, or an older proof. */
  readonly unsure: string | undefined;
  /** When the next proof is due. */
  readonly due: number;
}

interface Run {
  readonly tag: string;
  readonly abort: AbortController;
  readonly done: Promise<void>;
  /** So far. */
  caught: number;
}

/** A size that falls short is looked at again after this, and then after twice that, and so on: an operator may have set what is missing. */
const FIRST_RETRY = 30_000;
const LONGEST_TIMER = 2 ** 31 - 1;
/** Tags whose sizes are remembered; replicas behind one address may have several. */
const MAX_TAGS = 16;
/** While another instance proves: as long as so many canaries may take. */
const PATIENCE = 3;

/**
 * Invariants: one run at a time; a size counts for that tag alone under which all of its canaries were answered; whatever was said clean
 * under a size that a later proof refutes is doubted.
 */
export class SizeProof implements Disposable {
  readonly #options: SizeProofOptions;
  readonly #wanted: number;
  /** The oldest first. */
  readonly #known = new Map<string, Known>();
  readonly #doubts = new Doubts();
  #tag: string | undefined;
  #run: Run | undefined;
  /** Proofs in a row that fell short. */
  #shortfalls = 0;
  /** Verdicts from before may have been kept under any size; until the first proof has come to its end, that is. */
  #unjudgedUntil: number | undefined;
  /** Resolves when there is more to know, and is then another one. */
  #news = Promise.withResolvers<void>();
  #timer: NodeJS.Timeout | undefined;
  #disposed = false;

  constructor(options: SizeProofOptions) {
    this.#options = options;
    this.#wanted = Math.min(Math.max(options.maxSize, MIN_CANARY_SIZE), MAX_CANARY_SIZE);
    this.#unjudgedUntil = options.clock();
  }

  /** A tag stands (its canaries have passed): its size is proven now, unless it is known and fresh. */
  stands(tag: string): void {
    if (this.#disposed) return;
    if (this.#tag !== tag) this.#shortfalls = 0;
    this.#tag = tag;
    if (this.#underWay(tag)) return;
    const due = this.#known.get(tag)?.due;
    if (due !== undefined && due > this.#options.clock()) {
      this.#run?.abort.abort(new Error("another ISTag stands"));
      return this.#schedule(due);
    }
    this.#start(tag);
  }

  /**
   * How many bytes the service is proven to scan under this tag. Waits while that is being found out for the first time, but no longer
   * than until `enough` bytes are proven. To be asked after the answer as well, since another proof may have ended in the meantime.
   * @throws the signal's reason.
   */
  async limit(tag: string, signal: AbortSignal, enough = Number.POSITIVE_INFINITY): Promise<number> {
    for (;;) {
      const known = this.#known.get(tag);
      if (known !== undefined) return known.size;
      if (this.#run?.tag !== tag) return this.#assumed;
      if (this.#run.caught >= enough) return this.#run.caught;
      await waitFor(this.#news.promise, signal);
    }
  }

  /** As `limit`, if it is known. */
  size(tag: string): number | undefined {
    return this.#known.get(tag)?.size;
  }

  /** What an operator should know and set; empty when everything up to `maxSize` is scanned. */
  get warnings(): readonly string[] {
    const advice = this.#tag === undefined ? undefined : this.#adviceOn(this.#tag);
    return advice === undefined ? [] : [`${this.#options.name}: ${advice}`];
  }

  /** Whether such a verdict may rest on a size that turned out not to be scanned. */
  doubts(stamp: Stamp, outcome: KeptOutcome): boolean {
    return this.#doubts.holds(stamp, outcome);
  }

  /** Proves this tag now, or joins the proof that is under way; resolves with its size. Never rejects. */
  async prove(tag: string): Promise<number> {
    if (!this.#disposed) {
      this.#tag = tag;
      if (!this.#underWay(tag)) this.#start(tag);
      await this.#run?.done;
    }
    return this.size(tag) ?? this.#assumed;
  }

  #adviceOn(tag: string): string | undefined {
    const known = this.#known.get(tag);
    const { maxSize } = this.#options;
    return known === undefined || known.size >= maxSize ? undefined : sizeAdvice(known.size, maxSize, known.unsure);
  }

  #underWay(tag: string): boolean {
    return this.#run?.tag === tag && !this.#run.abort.signal.aborted;
  }

  get #assumed(): number {
    return Math.min(ASSUMED_SIZE, this.#wanted);
  }

  #start(tag: string): void {
    clearTimeout(this.#timer);
    const previous = this.#run;
    previous?.abort.abort(new Error("another ISTag stands"));
    const { promise: done, resolve } = Promise.withResolvers<void>();
    const run: Run = { tag, abort: new AbortController(), done, caught: 0 };
    this.#run = run;
    void this.#runAfter(previous?.done, run).finally(resolve);
  }

  async #runAfter(previous: Promise<void> | undefined, run: Run): Promise<void> {
    await previous;
    const { signal } = run.abort;
    try {
      if (!signal.aborted) await this.#prove(run, signal);
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      if (this.#run === run) this.#run = undefined;
      this.#tell();
    }
  }

  /** @throws the signal's reason. */
  async #prove(run: Run, signal: AbortSignal): Promise<void> {
    const { shared, timeout } = this.#options;
    if (shared === undefined) return this.#tryOut(run, signal);
    // An instance that wants another size proves another size.
    const place = { proofs: shared.proofs, key: JSON.stringify([shared.key, this.#wanted, run.tag]) };
    const found = await recallOrLease(place, (proof) => this.#fits(proof, run.tag), timeout * PATIENCE, signal);
    if ("at" in found) {
      signal.throwIfAborted();
      const { size, at } = found;
      // Of a size that falls short it is not known why.
      const acquitted = size < this.#wanted ? size + 1 : undefined;
      return this.#settle(run.tag, { size: Math.min(size, this.#wanted), at, unsure: undefined, acquitted, before: at });
    }
    await using _lease = found;
    await this.#tryOut(run, signal);
    const known = this.#known.get(run.tag);
    if (known?.unsure !== undefined || known === undefined || signal.aborted) return;
    await shared.proofs.remember(place.key, { size: known.size, at: Math.floor(known.at) });
  }

  /** A proof that tells more than what is known here, and that none will soon replace. */
  #fits({ size, at }: SharedProof, tag: string): boolean {
    const now = this.#options.clock();
    const known = this.#known.get(tag);
    const sound = Number.isSafeInteger(size) && size >= 0 && at <= now && now - at < this.#options.interval;
    return sound && (known === undefined || known.unsure !== undefined || at > known.at);
  }

  async #tryOut(run: Run, signal: AbortSignal): Promise<void> {
    const begun = this.#options.clock();
    let unsure = "all of its canaries failed";
    const found = await searchSize(this.#wanted, async (size): Promise<Attempt> => {
      const answer = await this.#send(size, signal);
      if ("why" in answer) {
        unsure = answer.why;
        return answer.outcome === "failed" ? "failed" : "unanswered";
      }
      if (answer.tag !== run.tag) {
        unsure = "its ISTag changed meanwhile";
        return "unanswered";
      }
      if (answer.outcome !== "infected") return "acquitted";
      run.caught = size;
      this.#tell();
      return "infected";
    });
    signal.throwIfAborted();
    const { acquitted } = found;
    const before = this.#unjudgedUntil ?? begun;
    if (found.complete) return this.#settle(run.tag, { size: found.caught, at: begun, unsure: undefined, acquitted, before });
    const kept = this.#keptOf(run.tag, acquitted, begun);
    const { size, at } = found.caught > kept.size ? { size: found.caught, at: begun } : kept;
    this.#settle(run.tag, { size, at, unsure, acquitted, before });
  }

  /** What may still be believed when a proof could not be brought to its end. */
  #keptOf(tag: string, acquitted = Number.POSITIVE_INFINITY, begun: number): SharedProof {
    const known = this.#known.get(tag);
    if (known !== undefined && known.size < acquitted) return known;
    return { size: this.#assumed < acquitted ? this.#assumed : 0, at: begun };
  }

  async #send(size: number, signal: AbortSignal): Promise<CanaryAnswer> {
    const limit = AbortSignal.timeout(this.#options.timeout);
    try {
      return await this.#options.send(largeCanary(size), AbortSignal.any([signal, limit]));
    } catch (error) {
      const why = limit.aborted ? "a canary was not answered in time" : error instanceof Error ? error.message : String(error);
      return { outcome: "unreachable", why };
    }
  }

  #settle(tag: string, { size, at, unsure, acquitted, before }: Finding): void {
    const { name, interval, log, clock, maxSize } = this.#options;
    const now = clock();
    const known = this.#known.get(tag);
    if (acquitted !== undefined && known !== undefined && acquitted <= known.size) this.#doubts.add("clean", known.at, now);
    // Media of the size that is taken for granted passed all the while.
    if (acquitted !== undefined && acquitted <= this.#assumed) this.#doubts.add("clean", known?.at ?? Number.NEGATIVE_INFINITY, now);
    if (unsure === undefined) {
      // What was kept before this process looked, nobody here knows under which size.
      if (acquitted !== undefined && this.#unjudgedUntil !== undefined) this.#doubts.add("clean", Number.NEGATIVE_INFINITY, before);
      this.#unjudgedUntil = undefined;
    }
    this.#shortfalls = size < this.#wanted || unsure !== undefined ? this.#shortfalls + 1 : 0;
    const pause = this.#shortfalls === 0 ? interval : Math.min(FIRST_RETRY * 2 ** Math.min(this.#shortfalls - 1, 20), interval);
    const due = (this.#shortfalls === 0 ? at : now) + pause;
    this.#known.delete(tag);
    this.#known.set(tag, { size, at, unsure, due });
    for (const [old] of this.#known) if (this.#known.size > MAX_TAGS) this.#known.delete(old);
    this.#tell();
    if (this.#tag === tag) this.#schedule(due);
    if (known?.size !== size) log.sizeProven(name, tag, size, maxSize, this.#adviceOn(tag));
  }

  #schedule(due: number): void {
    clearTimeout(this.#timer);
    const { clock } = this.#options;
    const wait = Math.min(Math.max(due - clock(), 0), LONGEST_TIMER);
    this.#timer = setTimeout(() => {
      if (this.#tag !== undefined) this.stands(this.#tag);
    }, wait);
    this.#timer.unref();
  }

  #tell(): void {
    const { resolve } = this.#news;
    this.#news = Promise.withResolvers();
    resolve();
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    clearTimeout(this.#timer);
    this.#run?.abort.abort(new Error("shutting down"));
  }
}

/** What a proof came to. */
interface Finding extends SharedProof {
  readonly unsure: string | undefined;
  /** A size that was acquitted: media of that size and above may have been, too. */
  readonly acquitted: number | undefined;
  /** Up to when, if this is the first proof. */
  readonly before: number;
}
