/**
 * Up to which size a service scans what it is sent. A scanner that stops at its own limit answers as if the rest were clean, so canaries
 * that are padded to a size, EICAR at their end, show what it really looks at.
 */
import type { SharedProof, SharedProofs } from "../verdicts/shared-proofs.ts";
import { waitFor } from "./deadline.ts";
import { type Doubt, Doubts } from "./doubts.ts";
import { LargeCanaries, type LargeCanariesOptions } from "./large-canaries.ts";
import { MAX_CANARY_SIZE, MIN_CANARY_SIZE } from "./large-canary.ts";
import { recallOrLease } from "./lease-or-recall.ts";
import type { Standing } from "./proof.ts";
import type { KeptOutcome, Stamp } from "./scanner.ts";
import { SizeRetries } from "./size-retries.ts";
import { ASSUMED_SIZE, type Attempt, searchSize } from "./size-search.ts";
import { sizeAdvice } from "./size-advice.ts";

export interface SizeProofOptions extends LargeCanariesOptions {
  /** As logs and readiness name the service. */
  readonly name: string;
  /** What is to be scanned: `scan.max_file_size`, bytes. */
  readonly maxSize: number;
  /** Milliseconds from one proof to the next. */
  readonly interval: number;
  /** `key` names the service, as all instances do. */
  readonly shared?: { readonly proofs: SharedProofs; readonly key: string };
  /** It was found out that more was acquitted than was looked at. */
  readonly doubted?: (doubt: Doubt) => void;
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
  /** Aborted by that, and when the service's standing is lost. */
  readonly signal: AbortSignal;
  readonly done: Promise<void>;
  /** So far. */
  caught: number;
}

const LONGEST_TIMER = 2 ** 31 - 1;
/** Tags whose sizes are remembered; replicas behind one address may have several. */
const MAX_TAGS = 16;
/** While another instance proves: as long as so many canaries may take. */
const PATIENCE = 3;

/**
 * Invariants: one run at a time, and only while the service stands; a size counts for that tag alone under which all of its canaries were
 * answered; whatever was said clean under a size that a later proof refutes is doubted.
 */
export class SizeProof implements Disposable {
  readonly #options: SizeProofOptions;
  readonly #canaries: LargeCanaries;
  readonly #retries: SizeRetries;
  readonly #wanted: number;
  /** The oldest first. */
  readonly #known = new Map<string, Known>();
  readonly #doubts = new Doubts();
  #standing: Standing | undefined;
  #run: Run | undefined;
  /** Verdicts from before may have been kept under any size; until the first proof has come to its end, that is. */
  #unjudgedUntil: number | undefined;
  /** Resolves when there is more to know, and is then another one. */
  #news = Promise.withResolvers<void>();
  #timer: NodeJS.Timeout | undefined;
  #disposed = false;

  constructor(options: SizeProofOptions) {
    this.#options = options;
    this.#canaries = new LargeCanaries(options);
    this.#retries = new SizeRetries(options.interval);
    this.#wanted = Math.min(Math.max(options.maxSize, MIN_CANARY_SIZE), MAX_CANARY_SIZE);
    this.#unjudgedUntil = options.clock();
  }

  /** It stands (its canaries have passed), still or again: its size under this tag is proven now, unless it is known and fresh. */
  stands(standing: Standing): void {
    if (this.#disposed || standing.lost.aborted) return;
    const { tag } = standing;
    this.#stand(standing);
    if (this.#underWay(tag)) return;
    const due = Math.max(this.#known.get(tag)?.due ?? Number.NEGATIVE_INFINITY, this.#retries.notBefore);
    if (due > this.#options.clock()) {
      this.#run?.abort.abort(new Error("another ISTag stands"));
      return this.#schedule(due);
    }
    this.#start(standing);
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

  /** What an operator should know and set while the service stands; empty when everything up to `maxSize` is scanned. */
  get warnings(): readonly string[] {
    const advice = this.#standing?.lost.aborted === false ? this.#adviceOn(this.#standing.tag) : undefined;
    return advice === undefined ? [] : [`${this.#options.name}: ${advice}`];
  }

  /** Whether such a verdict may rest on a size that turned out not to be scanned. */
  doubts(stamp: Stamp, outcome: KeptOutcome): boolean {
    return this.#doubts.holds(stamp, outcome);
  }

  /** Scans wait for a connection that a canary may hold. */
  giveWay(): void {
    this.#canaries.giveWay();
  }

  /** Proves it now, or joins the proof that is under way; resolves with its size. Never rejects. */
  async prove(standing: Standing): Promise<number> {
    const { tag } = standing;
    if (!this.#disposed) {
      this.#stand(standing);
      if (!this.#underWay(tag)) this.#start(standing);
      await this.#run?.done;
    }
    return this.size(tag) ?? this.#assumed;
  }

  #stand(standing: Standing): void {
    if (this.#standing?.tag !== standing.tag) this.#retries.forget();
    this.#standing = standing;
  }

  #adviceOn(tag: string): string | undefined {
    const known = this.#known.get(tag);
    const { maxSize } = this.#options;
    return known === undefined || known.size >= maxSize ? undefined : sizeAdvice(known.size, maxSize, known.unsure);
  }

  #underWay(tag: string): boolean {
    return this.#run?.tag === tag && !this.#run.signal.aborted;
  }

  get #assumed(): number {
    return Math.min(ASSUMED_SIZE, this.#wanted);
  }

  #start({ tag, lost }: Standing): void {
    clearTimeout(this.#timer);
    const previous = this.#run;
    previous?.abort.abort(new Error("another ISTag stands"));
    const { promise: done, resolve } = Promise.withResolvers<void>();
    const abort = new AbortController();
    const run: Run = { tag, abort, signal: AbortSignal.any([abort.signal, lost]), done, caught: 0 };
    this.#run = run;
    void this.#runAfter(previous?.done, run).finally(resolve);
  }

  async #runAfter(previous: Promise<void> | undefined, run: Run): Promise<void> {
    await previous;
    try {
      if (!run.signal.aborted) await this.#prove(run, run.signal);
    } catch (error) {
      if (!run.signal.aborted) throw error;
      // The standing was lost, and nothing learned.
      if (!run.abort.signal.aborted) this.#retries.interrupted(this.#options.clock());
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
      return this.#settle(run.tag, { size: Math.min(size, this.#wanted), at, unsure: undefined, acquitted, before: at, took: 0 });
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
      const answer = await this.#canaries.send(size, signal);
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
    const { acquitted } = found;
    // What was acquitted was, whatever came after it.
    if (acquitted === undefined || this.#disposed) signal.throwIfAborted();
    const rest = { acquitted, before: this.#unjudgedUntil ?? begun, took: this.#options.clock() - begun };
    if (found.complete) return this.#settle(run.tag, { size: found.caught, at: begun, unsure: undefined, ...rest });
    const kept = this.#keptOf(run.tag, acquitted, begun);
    const { size, at } = found.caught > kept.size ? { size: found.caught, at: begun } : kept;
    this.#settle(run.tag, { size, at, unsure, ...rest });
  }

  /** What may still be believed when a proof could not be brought to its end. */
  #keptOf(tag: string, acquitted = Number.POSITIVE_INFINITY, begun: number): SharedProof {
    const known = this.#known.get(tag);
    if (known !== undefined && known.size < acquitted) return known;
    return { size: this.#assumed < acquitted ? this.#assumed : 0, at: begun };
  }

  #settle(tag: string, { size, at, unsure, acquitted, before, took }: Finding): void {
    const { name, log, clock, maxSize } = this.#options;
    const now = clock();
    const known = this.#known.get(tag);
    if (acquitted !== undefined && known !== undefined && acquitted <= known.size) this.#doubt(known.at, now);
    // Media of the size that is taken for granted passed all the while.
    if (acquitted !== undefined && acquitted <= this.#assumed) this.#doubt(known?.at ?? Number.NEGATIVE_INFINITY, now);
    if (unsure === undefined) {
      // What was kept before this process looked, nobody here knows under which size.
      if (acquitted !== undefined && this.#unjudgedUntil !== undefined) this.#doubt(Number.NEGATIVE_INFINITY, before);
      this.#unjudgedUntil = undefined;
    }
    const result = unsure !== undefined ? "unsure" : size < this.#wanted ? "short" : "all";
    const due = this.#retries.ended({ result, at, took }, now);
    this.#known.delete(tag);
    this.#known.set(tag, { size, at, unsure, due });
    for (const [old] of this.#known) if (this.#known.size > MAX_TAGS) this.#known.delete(old);
    this.#tell();
    if (this.#standing?.tag === tag) this.#schedule(due);
    if (known?.size !== size) log.sizeProven(name, tag, size, maxSize, this.#adviceOn(tag));
  }

  #doubt(from: number, until: number): void {
    const doubt: Doubt = { of: "clean", from, until };
    this.#doubts.add(doubt);
    this.#options.doubted?.(doubt);
  }

  #schedule(due: number): void {
    clearTimeout(this.#timer);
    const { clock } = this.#options;
    const wait = Math.min(Math.max(due - clock(), 0), LONGEST_TIMER);
    this.#timer = setTimeout(() => {
      if (this.#standing !== undefined) this.stands(this.#standing);
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
  /** Milliseconds. */
  readonly took: number;
}
