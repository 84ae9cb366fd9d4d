/** Whether a service still catches what it must: EICAR in several wrappings, sent to it as media is. */
import { type CanaryKind, buildCanary } from "./canary-samples.ts";
import { waitFor } from "./deadline.ts";
import { SingleFlight } from "./single-flight.ts";
import type { Stamp } from "./scanner.ts";

/** What a service said of one canary. `unanswered`: it could not be asked, or gave no verdict. */
export type CanaryAnswer =
  | { readonly outcome: "infected" | "unscannable" | "modified" | "clean"; readonly tag: string }
  | { readonly unanswered: string };

export interface ProofOptions {
  /** As logs and readiness name the service. */
  readonly name: string;
  /** Must all come back infected. */
  readonly required: readonly CanaryKind[];
  /** Milliseconds between one proof and the next. */
  readonly interval: number;
  /** Milliseconds that all canaries of one proof may take. */
  readonly timeout: number;
  readonly send: (bytes: Buffer, signal: AbortSignal) => Promise<CanaryAnswer>;
  readonly log: ProofLog;
  readonly clock: () => number;
}

export interface ProofLog {
  proven(service: string, tag: string): void;
  unproven(service: string, state: "broken" | "down", why: string): void;
  missed(service: string, kind: CanaryKind, advice: string): void;
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

/**
 * The standing of one service. Invariant: `tag` is set only while every required canary was caught under that tag, nothing has been
 * answered under another tag since, and no canary came back clean since.
 */
export class Proof implements Disposable {
  readonly #options: ProofOptions;
  readonly #runs = new SingleFlight<void>();
  readonly #advice = new SingleFlight<void>();
  #state: { kind: "starting" | "down" | "broken"; why: string } | { kind: "proven"; tag: string } = {
    kind: "starting",
    why: "its first canaries are not back yet",
  };
  #lastPass = 0;
  #lastRun = Number.NEGATIVE_INFINITY;
  #failures = 0;
  /** Clean verdicts given between a pass and the failure after it count no more. */
  #voidFrom = Number.POSITIVE_INFINITY;
  #voidUntil = Number.NEGATIVE_INFINITY;
  #upheldTag: string | undefined;
  readonly #missed = new Map<CanaryKind, string>();
  #advisedTag: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #stop = new AbortController();

  constructor(options: ProofOptions) {
    this.#options = options;
  }

  /** The tag under which verdicts count now. */
  get tag(): string | undefined {
    return this.#state.kind === "proven" ? this.#state.tag : undefined;
  }

  /** Why the service is not used; undefined while it is. */
  get problem(): string | undefined {
    return this.#state.kind === "proven" ? undefined : `${this.#options.name}: ${this.#state.why}`;
  }

  get warnings(): readonly string[] {
    return [...this.#missed.values()];
  }

  /** Whether a verdict given under this stamp counts. A service that is merely down keeps what it said before. */
  upholds(stamp: Stamp): boolean {
    return stamp.tag === this.#upheldTag && !(stamp.at >= this.#voidFrom && stamp.at <= this.#voidUntil);
  }

  /** Another tag was seen: what was said under the old one counts no more, and nothing under the new one counts yet. */
  tagChanged(tag: string): void {
    if (tag === this.#upheldTag) return;
    this.#upheldTag = undefined;
    if (this.#state.kind === "proven")
      this.#state = { kind: "starting", why: `its ISTag changed to ${quoted(tag)}, and its canaries are not back yet` };
  }

  /** The service could not be reached: no use asking it before it has answered a canary. */
  unreachable(why: string): void {
    if (this.#state.kind === "proven") this.#fail("down", why);
    this.#schedule(FIRST_RETRY);
  }

  /** Something about it is odd; the next proof comes soon. */
  suspect(): void {
    const since = this.#options.clock() - this.#lastRun;
    if (since > FIRST_RETRY) this.#schedule(0);
  }

  /**
   * Resolves once the proof is as good as it can be had now: joins a run, or starts one unless the last has only just ended.
   * @throws the signal's reason.
   */
  async renew(signal: AbortSignal): Promise<void> {
    if (this.#runs.size === 0 && this.#options.clock() - this.#lastRun < FIRST_RETRY && this.#failures > 0) return;
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
        this.#schedule(
          this.tag === undefined ? Math.min(FIRST_RETRY * 2 ** Math.min(this.#failures, 10), MAX_RETRY) : this.#options.interval,
        );
      }
    }).result;
  }

  async #run(): Promise<void> {
    const { required, clock } = this.#options;
    const begun = clock();
    const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(this.#options.timeout)]);
    const tags = new Set<string>();
    // A service without canaries (DLP) still has to answer; what it says of harmless bytes is its own affair.
    for (const kind of required.length === 0 ? (["none"] as const) : required) {
      const bytes = kind === "none" ? Buffer.from("canary\n") : buildCanary(kind).bytes;
      const answer = await this.#send(bytes, signal);
      if (this.#stop.signal.aborted) return;
      if ("unanswered" in answer) return this.#fail("down", answer.unanswered);
      if (kind !== "none" && !caught(kind, answer.outcome)) return this.#broken(complaint(kind, answer.outcome));
      tags.add(answer.tag);
    }
    const [tag] = tags;
    if (tag === undefined || tags.size > 1) return this.#fail("down", "its ISTag changed while its canaries were sent");
    this.#pass(tag, begun);
    // Nobody waits for these: some keep an engine busy for seconds.
    if (this.#advisedTag !== tag) void this.#advice.join("", () => this.#advise(tag)).result;
  }

  async #send(bytes: Buffer, signal: AbortSignal): Promise<CanaryAnswer> {
    try {
      return await this.#options.send(bytes, signal);
    } catch (error) {
      return {
        unanswered: signal.aborted ? "its canaries were not answered in time" : error instanceof Error ? error.message : String(error),
      };
    }
  }

  #pass(tag: string, begun: number): void {
    const known = this.tag === tag;
    this.#state = { kind: "proven", tag };
    this.#upheldTag = tag;
    this.#failures = 0;
    this.#lastPass = begun;
    if (!known) this.#options.log.proven(this.#options.name, tag);
  }

  #broken(why: string): void {
    this.#voidFrom = Math.min(this.#voidFrom, this.#lastPass);
    this.#voidUntil = this.#options.clock();
    this.#fail("broken", why);
  }

  #fail(kind: "broken" | "down", why: string): void {
    const known = this.#state.kind === kind && this.#state.why === why;
    this.#failures += 1;
    this.#state = { kind, why };
    if (!known) this.#options.log.unproven(this.#options.name, kind, why);
  }

  /** The canaries whose loss is only told: once for each tag, because some cost the engine seconds. */
  async #advise(tag: string): Promise<void> {
    const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(this.#options.timeout)]);
    for (const kind of ADVISORY) {
      if (this.#options.required.includes(kind) || this.#options.required.length === 0) continue;
      const answer = await this.#send(buildCanary(kind).bytes, signal);
      if ("unanswered" in answer) return;
      const missed = !caught(kind, answer.outcome);
      if (missed && !this.#missed.has(kind)) this.#options.log.missed(this.#options.name, kind, ADVICE[kind]);
      if (missed) this.#missed.set(kind, `${this.#options.name}: ${ADVICE[kind]}`);
      else this.#missed.delete(kind);
    }
    this.#advisedTag = tag;
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

type Outcome = Extract<CanaryAnswer, { outcome: unknown }>["outcome"];

/** What a scanner can't look into is as good as caught where just that is the question; EICAR in the open must be named. */
function caught(kind: CanaryKind, outcome: Outcome): boolean {
  return outcome === "infected" || (outcome === "unscannable" && ADVISORY.includes(kind));
}

function complaint(kind: CanaryKind, outcome: Outcome): string {
  return outcome === "clean" ? ADVICE[kind] : `it answered "${outcome}" to the ${kind} EICAR test file instead of reporting it as infected`;
}

function quoted(tag: string): string {
  return JSON.stringify(tag.slice(0, 64));
}
