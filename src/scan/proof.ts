/** Whether a service still catches what it must: EICAR in several wrappings, sent to it as media is. */
import { randomUUID } from "node:crypto";
import { type CanaryKind, buildCanary } from "./canary-samples.ts";
import { waitFor } from "./deadline.ts";
import { SingleFlight } from "./single-flight.ts";
import type { KeptOutcome, Stamp } from "./scanner.ts";

/** What a service said of one canary: a verdict under a tag, that it failed, or (`unreachable`) nothing. */
export type CanaryAnswer =
  | { readonly outcome: "infected" | "unscannable" | "modified" | "clean"; readonly tag: string }
  | { readonly outcome: "failed" | "unreachable"; readonly why: string };

export interface ProofOptions {
  /** As logs and readiness name the service. */
  readonly name: string;
  /** Must all come back infected. */
  readonly required: readonly CanaryKind[];
  /** Milliseconds between one proof and the next. */
  readonly interval: number;
  /** Milliseconds that all canaries of one proof may take. */
  readonly timeout: number;
  /** May reject; that is `unreachable`. */
  readonly send: (bytes: Buffer, signal: AbortSignal) => Promise<CanaryAnswer>;
  readonly log: ProofLog;
  readonly clock: () => number;
}

export interface ProofLog {
  proven(service: string, tag: string): void;
  unproven(service: string, state: "broken" | "down", why: string): void;
  /** A canary that is not required is missed, or is caught again. */
  missed(service: string, kind: CanaryKind, missed: boolean, advice: string): void;
}

/** Missing one of these is told, not punished, unless the service is set to require it. */
const ADVISORY: readonly CanaryKind[] = ["expand", "encrypted"];

const ADVICE: Record<CanaryKind, string> = {
  plain:
    "it let the plain EICAR test file pass, so it scans nothing: the antivirus engine behind it is probably not running or was started after it (restart the ICAP server once the engine answers)",
  zip: "it let EICAR in a zip pass: switch the scanning of archives on (c-icap: ARCHIVE among virus_scan.ScanFileTypes, or force=on in the service URL)",
  pdf: "it let EICAR embedded in a PDF pass: it does not scan all types (c-icap: add force=on to the service URL, or all types to virus_scan.ScanFileTypes)",
  expand:
    "it says clean of an archive that unpacks to more than it looks at (ClamAV: set AlertExceedsMax yes); what lies behind its limit is not scanned",
  encrypted: "it says clean of an encrypted archive (ClamAV: set AlertEncrypted yes); what is inside is not scanned",
};

/** After a failure the next try comes sooner: seconds, not a whole interval. */
const FIRST_RETRY = 1_000;
const MAX_RETRY = 15_000;
/** Advisory canaries may keep an engine busy for seconds, so they go out once for each tag, and then seldom. */
const ADVICE_INTERVAL = 3_600_000;
/** Windows of doubt that are kept apart; older ones are joined into one. */
const MAX_WINDOWS = 32;

/** A time between a pass and the failure after it, and the verdicts that the failure makes doubtful. */
interface Doubt {
  readonly of: KeptOutcome;
  readonly from: number;
  readonly until: number;
}

const LOOK_AT_ENGINE = "look whether the antivirus engine behind it runs, and into its log";

/** A proof that holds. Each is an object of its own: whoever compares it before and after knows that nothing came between. */
export interface Standing {
  readonly tag: string;
}

/**
 * The standing of one service. Invariant: `standing` is set only while every required canary was caught under its tag, a harmless file
 * passed, nothing has been answered under another tag since, and no canary failed since.
 */
export class Proof implements Disposable {
  readonly #options: ProofOptions;
  readonly #runs = new SingleFlight<void>();
  readonly #advice = new SingleFlight<void>();
  #standing: Standing | undefined;
  #trouble: { readonly kind: "starting" | "down" | "broken"; readonly why: string } = {
    kind: "starting",
    why: "its first canaries are not back yet",
  };
  #lastPass = Number.NEGATIVE_INFINITY;
  #lastRun = Number.NEGATIVE_INFINITY;
  #failures = 0;
  #doubts: Doubt[] = [];
  /** What is doubted already of the time since the last pass. */
  readonly #doubted = new Set<KeptOutcome>();
  /** When the last standing was lost; before there was any, the start. */
  #lostAt: number;
  /** Tags that scans met while a run was under way. */
  readonly #seenTags = new Set<string>();
  /** Outlives the standing of a service that is merely down. */
  #upheldTag: string | undefined;
  readonly #missed = new Map<CanaryKind, string>();
  #advised: { readonly tag: string; readonly at: number } | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #stop = new AbortController();

  constructor(options: ProofOptions) {
    this.#options = options;
    this.#lostAt = options.clock();
  }

  /** Under which verdicts count now. */
  get standing(): Standing | undefined {
    return this.#standing;
  }

  /** Why the service is not used; undefined while it is. */
  get problem(): string | undefined {
    return this.#standing === undefined ? `${this.#options.name}: ${this.#trouble.why}` : undefined;
  }

  get warnings(): readonly string[] {
    return [...this.#missed.values()];
  }

  /** Whether such a verdict, given under this stamp, counts. A service that is merely down keeps what it said before. */
  upholds(stamp: Stamp, outcome: KeptOutcome): boolean {
    return stamp.tag === this.#upheldTag && !this.doubts(stamp, outcome);
  }

  /** Whether it was given at a time when this service, as was found out later, may not have worked. */
  doubts({ at }: Stamp, outcome: KeptOutcome): boolean {
    return this.#doubts.some(({ of, from, until }) => of === outcome && at >= from && at <= until);
  }

  /** Another tag was seen: what was said under the old one counts no more, and nothing under the new one counts yet. */
  tagChanged(tag: string): void {
    this.#seenTags.add(tag);
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

  /** Something about it is odd; the next proof comes soon. */
  suspect(): void {
    if (this.#options.clock() - this.#lastRun > FIRST_RETRY) this.#schedule(0);
  }

  /**
   * Resolves once the proof is as good as it can be had now: joins a run, or starts one unless the last has only just failed.
   * @throws the signal's reason.
   */
  async renew(signal: AbortSignal): Promise<void> {
    const justFailed = this.#failures > 0 && this.#options.clock() - this.#lastRun < FIRST_RETRY;
    if (this.#runs.size === 0 && justFailed) return;
    await waitFor(this.prove(), signal);
  }

  /** Sends all required canaries. Never rejects. */
  prove(): Promise<void> {
    if (this.#stop.signal.aborted) return Promise.resolve();
    return this.#runs.join("", async () => {
      clearTimeout(this.#timer);
      try {
        await this.#run();
      } finally {
        this.#lastRun = this.#options.clock();
        const retry = Math.min(FIRST_RETRY * 2 ** Math.min(this.#failures, 10), MAX_RETRY);
        this.#schedule(this.#standing === undefined ? Math.min(retry, this.#options.interval) : this.#options.interval);
      }
    }).result;
  }

  async #run(): Promise<void> {
    const { required, clock } = this.#options;
    const begun = clock();
    const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(this.#options.timeout)]);
    const tags = new Set<string>();
    const found: { failure?: string; complaint?: string; unreachable?: string } = {};
    this.#seenTags.clear();
    // All of them, whatever the first ones came to: an engine that fails at one may acquit the next.
    for (const kind of ["harmless", ...required] as const) {
      const answer = await this.#send(kind === "harmless" ? harmless() : buildCanary(kind).bytes, signal);
      if (this.#stop.signal.aborted) return;
      if ("why" in answer) {
        found[answer.outcome === "failed" ? "failure" : "unreachable"] ??= answer.why;
        if (answer.outcome === "unreachable") break;
        continue;
      }
      const complaint = this.#complaint(kind, answer.outcome);
      if (complaint !== undefined && kind !== "harmless") {
        return this.#doubt(found.complaint === undefined ? ["clean"] : ["clean", "infected"], "broken", complaint);
      }
      if (complaint !== undefined) found.complaint = complaint;
      tags.add(answer.tag);
    }
    if (found.complaint !== undefined) return this.#doubt(["clean", "infected"], "broken", found.complaint);
    if (found.failure !== undefined) {
      return this.#doubt(["clean"], "down", `it could not scan its canaries (${found.failure}): ${LOOK_AT_ENGINE}`);
    }
    if (found.unreachable !== undefined) return this.#fail("down", found.unreachable);
    const [tag] = tags;
    if (tag === undefined || tags.size > 1 || [...this.#seenTags].some((seen) => seen !== tag)) {
      this.#upheldTag = undefined;
      return this.#fail("down", "its ISTag changed while its canaries were sent");
    }
    this.#pass(tag, begun);
    const advisedLately = this.#advised?.tag === tag && clock() - this.#advised.at < ADVICE_INTERVAL;
    // Nobody waits for these.
    if (!advisedLately) void this.#advice.join("", () => this.#advise(tag)).result;
  }

  /** What is wrong with this answer; what a service without canaries (DLP) says of a harmless file is its own affair. */
  #complaint(kind: CanaryKind | "harmless", outcome: Outcome): string | undefined {
    if (kind !== "harmless") return caught(kind, outcome) ? undefined : complaintAbout(kind, outcome);
    if (outcome === "clean" || this.#options.required.length === 0) return undefined;
    return `it answered "${outcome}" to a harmless text file, so its verdicts mean nothing`;
  }

  async #send(bytes: Buffer, signal: AbortSignal): Promise<CanaryAnswer> {
    try {
      return await this.#options.send(bytes, signal);
    } catch (error) {
      const why = signal.aborted ? "its canaries were not answered in time" : error instanceof Error ? error.message : String(error);
      return { outcome: "unreachable", why };
    }
  }

  #pass(tag: string, begun: number): void {
    this.#failures = 0;
    this.#doubted.clear();
    this.#lastPass = begun;
    this.#upheldTag = tag;
    if (this.#standing?.tag === tag) return;
    this.#standing = { tag };
    this.#options.log.proven(this.#options.name, tag);
  }

  /** It answered, and wrongly: it may have done so ever since it last passed. */
  #doubt(outcomes: readonly KeptOutcome[], kind: "broken" | "down", why: string): void {
    const until = this.#standing === undefined ? this.#lostAt : this.#options.clock();
    for (const of of outcomes) {
      // What it says while it has no standing counts nowhere, so there is one window for each standing that was lost.
      if (this.#doubted.has(of)) continue;
      this.#doubted.add(of);
      this.#doubts.push({ of, from: this.#lastPass, until });
      this.#joinOldDoubts(of);
    }
    this.#fail(kind, why);
  }

  #joinOldDoubts(of: KeptOutcome): void {
    const [first, second, ...rest] = this.#doubts.filter((doubt) => doubt.of === of);
    if (first === undefined || second === undefined || rest.length < MAX_WINDOWS) return;
    const joined = { of, from: Math.min(first.from, second.from), until: second.until };
    this.#doubts = [joined, ...this.#doubts.filter((doubt) => doubt !== first && doubt !== second)];
  }

  #fail(kind: "broken" | "down", why: string): void {
    const known = this.#standing === undefined && this.#trouble.kind === kind && this.#trouble.why === why;
    this.#failures += 1;
    this.#lose({ kind, why });
    if (!known) this.#options.log.unproven(this.#options.name, kind, why);
  }

  #lose(trouble: { readonly kind: "starting" | "down" | "broken"; readonly why: string }): void {
    if (this.#standing !== undefined) this.#lostAt = this.#options.clock();
    this.#standing = undefined;
    this.#trouble = trouble;
  }

  async #advise(tag: string): Promise<void> {
    const { required, log, name, timeout, clock } = this.#options;
    const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(timeout)]);
    for (const kind of ADVISORY) {
      if (required.includes(kind) || required.length === 0) continue;
      const answer = await this.#send(buildCanary(kind).bytes, signal);
      if ("why" in answer) return;
      const missed = !caught(kind, answer.outcome);
      if (missed !== this.#missed.has(kind)) log.missed(name, kind, missed, ADVICE[kind]);
      if (missed) this.#missed.set(kind, `${name}: ${ADVICE[kind]}`);
      else this.#missed.delete(kind);
    }
    this.#advised = { tag, at: clock() };
  }

  #schedule(delay: number): void {
    clearTimeout(this.#timer);
    if (this.#stop.signal.aborted) return;
    this.#timer = setTimeout(() => void this.prove(), delay);
    this.#timer.unref();
  }

  [Symbol.dispose](): void {
    this.#stop.abort(new Error("shutting down"));
    clearTimeout(this.#timer);
  }
}

type Outcome = Extract<CanaryAnswer, { tag: string }>["outcome"];

/** What a scanner can't look into is as good as caught where just that is the question; EICAR in the open must be named. */
function caught(kind: CanaryKind, outcome: Outcome): boolean {
  return outcome === "infected" || (outcome === "unscannable" && ADVISORY.includes(kind));
}

function complaintAbout(kind: CanaryKind, outcome: Outcome): string {
  return outcome === "clean" ? ADVICE[kind] : `it answered "${outcome}" to the ${kind} EICAR test file instead of reporting it as infected`;
}

/** Another one each time, so that no answer comes from a cache of hashes. */
function harmless(): Buffer {
  return Buffer.from(`A harmless text file: ${randomUUID()}\n`);
}
