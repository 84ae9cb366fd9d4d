/** Whether a service still catches what it must: EICAR in several wrappings, sent to it as media is. */
import { AdvisoryCanaries } from "./advisory-canaries.ts";
import { type CanaryAnswer, runCanaries } from "./canary-run.ts";
import type { Canary, CanaryKind } from "./canary-samples.ts";
import { Deadline, waitFor } from "./deadline.ts";
import { type Doubt, Doubts } from "./doubts.ts";
import { SingleFlight } from "./single-flight.ts";
import type { KeptOutcome, Stamp } from "./scanner.ts";

export type { CanaryAnswer };

/**
 * - `starting`: no canary has come back yet, under this tag.
 * - `up`: it is used.
 * - `suspended`: its canaries pass, but too many scans failed; it is left alone for a while.
 * - `probed`: the canaries which may end a suspension, or its being down, are under way.
 * - `down`: it does not answer, or not with verdicts.
 * - `broken`: it answered a canary wrongly.
 */
export type ProofState = "starting" | "up" | "suspended" | "probed" | "down" | "broken";

export interface ProofOptions {
  /** As logs and readiness name the service. */
  readonly name: string;
  /** Must all come back infected. */
  readonly required: readonly CanaryKind[];
  /** Milliseconds between one proof and the next. */
  readonly interval: number;
  /** Milliseconds that all canaries of one proof may take. */
  readonly timeout: number;
  /** Milliseconds of silence after which a service that kept scans waiting counts as hung; one that is merely busy answers something. 10000 by default. */
  readonly silence?: number;
  /** Resolves, before each proof, once canaries would not wait behind scans; and when the signal aborts. Never rejects. */
  readonly room?: (signal: AbortSignal) => Promise<void>;
  /** May reject; that is `unreachable`. */
  readonly send: (canary: Canary, signal: AbortSignal) => Promise<CanaryAnswer>;
  /** It has just passed under this tag, again or for the first time; the canaries went out `at` this moment. */
  readonly passed?: (tag: string, at: number) => void;
  /** It was found out that it may not have worked. */
  readonly doubted?: (doubt: Doubt) => void;
  /** It answered under another tag than before. */
  readonly changed?: () => void;
  readonly log: ProofLog;
  readonly clock: () => number;
}

export interface ProofLog {
  proven(service: string, tag: string): void;
  unproven(service: string, state: "broken" | "down" | "suspended", why: string): void;
  /** A canary that is not required is missed, or is caught again. */
  missed(service: string, kind: CanaryKind, missed: boolean, advice: string): void;
}

/** After a failure the next try comes sooner: seconds, not a whole interval. */
const FIRST_RETRY = 1_000;
const MAX_RETRY = 15_000;
/** Milliseconds for which an answer may have been on its way while its connection was kept. */
const MIX_UP = 10 * 60_000;
const SILENCE = 10_000;

/**
 * A proof that holds. Each is an object of its own: a verdict counts only if the standing under which it was asked for still holds when it
 * comes, so that nothing that was found out in between can be missed.
 */
export interface Standing {
  readonly tag: string;
  /** Aborted when it holds no longer, so that nobody waits for answers which can't count any more. */
  readonly lost: AbortSignal;
}

/**
 * The standing of one service. Invariant: `standing` is set only while every required canary was caught under its tag, a harmless file
 * passed, nothing has been answered under another tag since, no canary failed since, and it is not suspended.
 */
export class Proof implements Disposable {
  readonly #options: ProofOptions;
  readonly #runs = new SingleFlight<void>();
  readonly #advisory: AdvisoryCanaries;
  readonly #doubts = new Doubts();
  #standing: { readonly tag: string; readonly lost: AbortSignal; readonly lose: AbortController } | undefined;
  #trouble: { readonly kind: Exclude<ProofState, "up" | "probed">; readonly why: string } = {
    kind: "starting",
    why: "its first canaries are not back yet",
  };
  #lastPass = Number.NEGATIVE_INFINITY;
  #lastRun = Number.NEGATIVE_INFINITY;
  #failures = 0;
  /** What is doubted already of the time since the last pass. */
  readonly #doubted = new Set<KeptOutcome>();
  /** When the last standing was lost; before there was any, the start. */
  #lostAt: number;
  /** Tags that scans met while a run was under way. */
  readonly #seenTags = new Set<string>();
  /** Of the last answer that was looked at. */
  #lastTag: string | undefined;
  /** Outlives the standing of a service that is merely down, or suspended. */
  #upheldTag: string | undefined;
  /** It kept scans waiting, and has not passed since. */
  #stuck = false;
  /** Ends a run of a stuck service that has been silent for too long. */
  #silence: Deadline | undefined;
  /** Its end is the end of a suspension; none is under way while it is undefined. */
  #pause: NodeJS.Timeout | undefined;
  #timer: NodeJS.Timeout | undefined;
  #running = false;
  /** The run that is under way may have come too early. */
  #again = false;
  readonly #stop = new AbortController();

  constructor(options: ProofOptions) {
    this.#options = options;
    this.#lostAt = options.clock();
    this.#advisory = new AdvisoryCanaries({ ...options, send: (canary) => this.#sendAdvisory(canary) });
  }

  /** Under which verdicts count now. */
  get standing(): Standing | undefined {
    return this.#standing;
  }

  get state(): ProofState {
    if (this.#standing !== undefined) return "up";
    const { kind } = this.#trouble;
    const probed = this.#running && this.#pause === undefined && (kind === "suspended" || kind === "down");
    return probed ? "probed" : kind;
  }

  /** It stands, but better ones should be asked first. */
  get stuck(): boolean {
    return this.#stuck;
  }

  /** Why the service is not used; undefined while it is. */
  get problem(): string | undefined {
    return this.#standing === undefined ? `${this.#options.name}: ${this.#trouble.why}` : undefined;
  }

  get warnings(): readonly string[] {
    return this.#advisory.warnings;
  }

  /** Whether such a verdict, given under this stamp, counts. A service that is merely down keeps what it said before. */
  upholds(stamp: Stamp, outcome: KeptOutcome): boolean {
    return stamp.tag === this.#upheldTag && !this.doubts(stamp, outcome);
  }

  /** Whether it was given at a time when this service, as was found out later, may not have worked. */
  doubts(stamp: Stamp, outcome: KeptOutcome): boolean {
    return this.#doubts.holds(stamp, outcome);
  }

  /** Another tag was seen: what was said under the old one counts no more, and nothing under the new one counts yet. */
  tagChanged(tag: string): void {
    this.#seenTags.add(tag);
    this.#notice(tag);
    if (tag === this.#upheldTag) return;
    this.#upheldTag = undefined;
    if (this.#standing === undefined) return;
    const why = `its ISTag changed to ${JSON.stringify(tag.slice(0, 64))}, and its canaries are not back yet`;
    this.#lose({ kind: "starting", why });
  }

  /** The service could not be reached: no use asking it before it has answered a canary. */
  unreachable(why: string): void {
    if (this.#standing !== undefined) this.#fail("down", why);
    this.#schedule(FIRST_RETRY);
  }

  /** An answer came that nobody had asked for: what was taken for the answer to a file just before may have been another's. */
  mixedUp(): void {
    const now = this.#options.clock();
    const doubt = { of: "clean", from: now - MIX_UP, until: now } as const;
    this.#doubts.add(doubt);
    this.#options.doubted?.(doubt);
    this.#fail("down", "it sent an answer that nobody had asked for, so it can't be told which file its answers are for");
    this.#schedule(FIRST_RETRY);
  }

  /** Too many scans failed: it is not used until it passes its canaries after so many milliseconds, or is needed (`renew`). */
  suspend(milliseconds: number, why: string): void {
    if (this.#standing === undefined || this.#stop.signal.aborted) return;
    clearTimeout(this.#timer);
    this.#pause = setTimeout(() => this.#resume(), milliseconds).unref();
    this.#lose({ kind: "suspended", why });
    this.#options.log.unproven(this.#options.name, "suspended", why);
  }

  /** Something about it is odd; the next proof comes soon. */
  suspect(): void {
    const wait = Math.max(0, FIRST_RETRY - (this.#options.clock() - this.#lastRun));
    if (!this.#running && this.#standing !== undefined) this.#schedule(Math.min(wait, this.#options.interval));
  }

  /** Others have news of it; a proof that is under way may have missed what they saw. */
  recheck(): void {
    this.#again = this.#running;
    this.suspect();
  }

  /** It keeps scans waiting that another one answers. If it then is silent to its canaries as well, it is down sooner than by their timeout. */
  keptWaiting(): void {
    if (this.#stuck) return;
    this.#stuck = true;
    this.answered();
    this.suspect();
  }

  /** A sign of life: it answered something. */
  answered(): void {
    if (this.#stuck) this.#silence?.extend(this.#silenceLimit, unanswered);
  }

  /**
   * Resolves once the proof is as good as it can be had now: joins a run, or starts one unless the last has only just failed. `needed`: there
   * is nobody else, so that a suspension is over.
   * @throws the signal's reason.
   */
  async renew(signal: AbortSignal, { needed = false }: { readonly needed?: boolean } = {}): Promise<void> {
    if (this.#pause !== undefined && !needed) return;
    this.#endPause();
    const rest = FIRST_RETRY - (this.#options.clock() - this.#lastRun);
    if (!this.#running && this.#failures > 0 && rest > 0) {
      // A pause that has just ended left nobody to look again.
      this.#schedule(rest);
      return;
    }
    await waitFor(this.prove(), signal);
  }

  /** Sends all required canaries. Never rejects. */
  prove(): Promise<void> {
    if (this.#stop.signal.aborted) return Promise.resolve();
    return this.#runs.join("", async () => {
      clearTimeout(this.#timer);
      this.#running = true;
      this.#again = false;
      try {
        await this.#run();
      } finally {
        this.#running = false;
        this.#lastRun = this.#options.clock();
        const retry = Math.min(FIRST_RETRY * 2 ** Math.min(this.#failures, 10), MAX_RETRY);
        const next = this.#standing === undefined ? retry : this.#options.interval;
        this.#schedule(Math.min(this.#again ? FIRST_RETRY : next, this.#options.interval));
      }
    }).result;
  }

  async #run(): Promise<void> {
    const { required, timeout, clock } = this.#options;
    const begun = clock();
    // To wait in a line of our own is no silence of the service.
    await this.#options.room?.(this.#stop.signal);
    if (this.#stop.signal.aborted) return;
    using time = new Deadline(timeout, unanswered, this.#stop.signal);
    using silence = new Deadline(this.#silenceLimit, unanswered, time.signal);
    if (!this.#stuck) silence.lift();
    this.#silence = silence;
    this.#seenTags.clear();
    const result = await runCanaries(required, (canary) => this.#send(canary, silence.signal));
    if (this.#stop.signal.aborted) return;
    switch (result.kind) {
      case "broken":
        return this.#doubt(result.doubts, "broken", result.why);
      case "failed":
        return this.#doubt(result.doubts, "down", result.why);
      case "unreachable":
        return this.#fail("down", result.why);
      case "passed": {
        const [tag] = result.tags;
        for (const seen of result.tags) this.#notice(seen);
        if (tag !== undefined && result.tags.size === 1 && [...this.#seenTags].every((seen) => seen === tag)) return this.#pass(tag, begun);
        this.#upheldTag = undefined;
        return this.#fail("down", "its ISTag changed while its canaries were sent");
      }
    }
  }

  async #send(canary: Canary, signal: AbortSignal): Promise<CanaryAnswer> {
    try {
      const answer = await this.#options.send(canary, signal);
      this.answered();
      return answer;
    } catch (error) {
      const why = signal.aborted ? unanswered().message : error instanceof Error ? error.message : String(error);
      return { outcome: "unreachable", why };
    }
  }

  async #sendAdvisory(canary: Canary): Promise<CanaryAnswer> {
    using time = new Deadline(this.#options.timeout, unanswered, this.#stop.signal);
    return await this.#send(canary, time.signal);
  }

  #pass(tag: string, begun: number): void {
    this.#failures = 0;
    this.#doubted.clear();
    this.#lastPass = begun;
    this.#upheldTag = tag;
    // Canaries are not what it fails at.
    if (this.#pause !== undefined) return;
    this.#stuck = false;
    if (this.#standing?.tag !== tag) this.#stand(tag);
    this.#options.passed?.(tag, begun);
    // Nobody waits for these.
    void this.#advisory.run(tag);
  }

  #notice(tag: string): void {
    const changed = this.#lastTag !== undefined && this.#lastTag !== tag;
    this.#lastTag = tag;
    if (changed) this.#options.changed?.();
  }

  #stand(tag: string): void {
    this.#standing?.lose.abort(new StandingLost(this.#options.name));
    const lose = new AbortController();
    this.#standing = { tag, lost: lose.signal, lose };
    this.#options.log.proven(this.#options.name, tag);
  }

  /** It answered, and wrongly: it may have done so ever since it last passed. */
  #doubt(outcomes: readonly KeptOutcome[], kind: "broken" | "down", why: string): void {
    const until = this.#standing === undefined ? this.#lostAt : this.#options.clock();
    for (const of of outcomes) {
      // What it says while it has no standing counts nowhere, so there is one window for each standing that was lost.
      if (this.#doubted.has(of)) continue;
      this.#doubted.add(of);
      const doubt = { of, from: this.#lastPass, until };
      this.#doubts.add(doubt);
      this.#options.doubted?.(doubt);
    }
    this.#fail(kind, why);
  }

  #fail(kind: "broken" | "down", why: string): void {
    const known = this.#standing === undefined && this.#trouble.kind === kind && this.#trouble.why === why;
    this.#failures += 1;
    this.#lose({ kind, why });
    if (!known) this.#options.log.unproven(this.#options.name, kind, why);
  }

  #lose(trouble: { readonly kind: Exclude<ProofState, "up" | "probed">; readonly why: string }): void {
    const lost = this.#standing;
    if (lost !== undefined) this.#lostAt = this.#options.clock();
    this.#standing = undefined;
    this.#trouble = trouble;
    lost?.lose.abort(new StandingLost(trouble.why));
  }

  get #silenceLimit(): number {
    return Math.min(this.#options.silence ?? SILENCE, this.#options.timeout);
  }

  #resume(): void {
    this.#endPause();
    void this.prove();
  }

  #endPause(): void {
    clearTimeout(this.#pause);
    this.#pause = undefined;
  }

  #schedule(delay: number): void {
    clearTimeout(this.#timer);
    if (this.#stop.signal.aborted || this.#pause !== undefined) return;
    this.#timer = setTimeout(() => void this.prove(), delay).unref();
  }

  [Symbol.dispose](): void {
    this.#stop.abort(new Error("shutting down"));
    clearTimeout(this.#timer);
    this.#endPause();
  }
}

/** Why a scan ended that was under way when the standing was lost. */
class StandingLost extends Error {
  override readonly name = "StandingLost";
}

function unanswered(): Error {
  return new Error("its canaries were not answered in time");
}
