/** What several scanners' verdicts come to, and which types may pass. */
import { type DetectedType, isAllowed, isBlocked } from "../media/mime.ts";
import { GatewayError } from "../errors.ts";
import type { ScanOutcome } from "../observability/metrics.ts";
import type { Stamps, VerdictRecord } from "../verdicts/store.ts";
import type { PipelineEvents } from "./events.ts";
import { audienceOf, contextFor } from "./audience.ts";
import { LinkedController } from "./deadline.ts";
import type { Identity, KeptOutcome, Replacement, ScanContext, Scanner, ScanSubject, ScanVerdict } from "./scanner.ts";

/** What happens to one content, for whoever asks for it. Only those that a `VerdictRecord` can say are ever kept. */
export type SharedDecision =
  | VerdictRecord
  | { readonly outcome: "modified" | "unscannable"; readonly why: string; readonly scanner: string }
  | Overridden
  /** Let through without a proof, because the operator chose so. */
  | { readonly outcome: "unscanned"; readonly why: string };

/** Operators decided on this very content by hand, whatever scanners say. Never kept as a verdict. */
export interface Overridden {
  readonly outcome: "blocked" | "allowed";
  readonly reason: string;
}

/**
 * Something else is handed on in the media's stead. It holds for the one request whose scan made it: the bytes are that scan's own, and nothing is
 * said of the original.
 */
export interface Sanitised {
  readonly outcome: "sanitised";
  readonly why: string;
  readonly scanner: string;
}

export type Decision = SharedDecision | Sanitised;

/** One scanner sent something else, and the others had nothing against the original. It is still to be looked at. */
export interface Replaced {
  readonly outcome: "replaced";
  readonly why: string;
  readonly by: Scanner;
  readonly replacement: Replacement;
}

/** Where one scanner may write what it sends in the media's stead. */
export interface Place {
  /** Whether more came than media may have. */
  readonly overflowed: boolean;
  /** @throws whatever keeps room from being had. */
  create(): Promise<Replacement>;
}

export interface PolicyOptions {
  readonly onUnavailable: "block" | "allow";
  readonly onUnscannable: "block" | "allow";
  /** `deliver`: what a scanner sent in the stead of plain media is handed on, once every required one, its maker too, said that it is clean. */
  readonly onModified: "block" | "deliver";
  /** Nothing but these, if it is there at all. */
  readonly allowedTypes: readonly string[] | undefined;
  readonly blockedTypes: readonly string[];
}

/** How often a scanner is asked whose verdict does not hold until the others have answered. */
const TRIES = 3;

/** What one round of questions came to. */
interface Round {
  readonly verdicts: readonly Said[];
  readonly failures: readonly unknown[];
}

interface Said {
  readonly scanner: Scanner;
  readonly verdict: ScanVerdict;
}

export class Policy {
  /**
   * Part of a verdict's key: verdicts made under another policy are other verdicts. Who is asked, and how (method, URL, profile), is all by which a download
   * differs from an upload.
   */
  readonly fingerprint: string;
  /** Whether the type of the bytes has to be known at all before they are scanned. */
  readonly needsType: boolean;
  /** Whether a scanner's replacement may be handed on. */
  readonly deliversReplacements: boolean;
  /** Scanners that decide nothing, and so are not asked here. */
  readonly advisers: readonly Scanner[];
  /** What is told of who asks: verdicts hold for those alone of whom the same was told. */
  readonly identities: readonly Identity[];
  /** Resolves once it is known which verdicts of before still count. */
  readonly settled: Promise<unknown>;
  #isSettled = false;
  /** The scope of what holds for everybody. */
  readonly #everybody: string;
  readonly #scanners: readonly Scanner[];
  readonly #options: PolicyOptions;
  readonly #lists: string;
  readonly #allowed: ReadonlySet<string> | undefined;
  readonly #blocked: ReadonlySet<string>;

  readonly #scanned: PipelineEvents["scanned"];

  /** @throws TypeError when no scanner is there that decides. */
  constructor(scanners: readonly Scanner[], options: PolicyOptions, events: Pick<PipelineEvents, "scanned">) {
    const required = scanners.filter((scanner) => scanner.required);
    // Nobody to ask would mean that everybody agreed.
    if (required.length === 0) throw new TypeError("there is no scanner that decides");
    this.#scanners = required;
    this.advisers = scanners.filter((scanner) => !scanner.required);
    this.identities = required.flatMap((scanner) => scanner.identities);
    this.settled = Promise.all(required.map((scanner) => scanner.settled)).then(() => (this.#isSettled = true));
    this.#options = options;
    this.deliversReplacements = options.onModified === "deliver";
    this.#scanned = (scanner, outcome, milliseconds) => events.scanned(scanner, outcome, milliseconds);
    this.#allowed = options.allowedTypes === undefined ? undefined : new Set(options.allowedTypes);
    this.#blocked = new Set(options.blockedTypes);
    this.#lists = JSON.stringify([options.allowedTypes?.toSorted() ?? null, options.blockedTypes.toSorted()]);
    this.fingerprint = JSON.stringify([required.map((scanner) => [scanner.name, scanner.policy]), this.#lists]);
    this.#everybody = JSON.stringify([this.fingerprint, ""]);
    this.needsType = this.#allowed !== undefined || this.#blocked.size > 0 || required.some((scanner) => scanner.needsType);
  }

  /**
   * What a verdict that was made under another policy of this gateway says under this one, for the same asker; undefined where it says nothing. Clean holds
   * where all that decide here were asked there, in the same way: downloads and uploads may be decided on by more or fewer.
   */
  carriedOver(record: VerdictRecord, from: Policy): VerdictRecord | undefined {
    if (from === this || from.fingerprint === this.fingerprint) return record;
    const asked = this.#scanners.every((scanner) => from.#scanners.includes(scanner));
    if (record.outcome !== "clean" || !asked || from.#lists !== this.#lists) return undefined;
    const stamps = Object.entries(record.stamps).filter(([name]) => this.#scanners.some((scanner) => scanner.name === name));
    return { outcome: "clean", stamps: Object.fromEntries(stamps) };
  }

  /** `settled` has resolved. */
  get isSettled(): boolean {
    return this.#isSettled;
  }

  /** For whom a verdict made on behalf of this asker holds; part of its key. Empty: for everybody. */
  audience(context: ScanContext | undefined): string {
    return audienceOf(this.identities, context);
  }

  /** The policy, and for whom its verdicts hold that were made on behalf of this asker. */
  scope(context: ScanContext | undefined): string {
    const audience = this.audience(context);
    return audience === "" ? this.#everybody : JSON.stringify([this.fingerprint, audience]);
  }

  /** The refusal of a type that the lists keep out. */
  refuseType(type: DetectedType): VerdictRecord | undefined {
    const passes = (this.#allowed === undefined || isAllowed(type, this.#allowed)) && !isBlocked(type, this.#blocked);
    return passes ? undefined : { outcome: "type_forbidden", mime: type.mime };
  }

  /** Whether a kept verdict still rests on what it rested on when it was made. */
  upholds(record: VerdictRecord): boolean {
    switch (record.outcome) {
      case "type_forbidden":
        return true;
      case "infected":
        return this.#scanners.some((scanner) => scanner.name === record.scanner && stillStands(scanner, record));
      case "clean":
        return this.#scanners.every((scanner) => stillStands(scanner, record));
    }
  }

  /**
   * Asks all required scanners at the same time. One that says infected settles it, and the others are cancelled; clean needs all of them.
   * Nothing that one scanner could not do outweighs what another one refused. Settled only when none of them reads the subject any more.
   * @param places gives each scanner a place for a replacement; without it there are none, and the decision is never `replaced`.
   * @throws GatewayError `scanner_unavailable` unless the operator lets such media pass, `beyond_proof` always; whatever the subject throws.
   */
  async judge(subject: ScanSubject, signal: AbortSignal, places?: () => Place): Promise<SharedDecision | Replaced> {
    const round = await this.#askAll(this.#scanners, subject, signal, ({ outcome }) => outcome === "infected", places);
    for (const { scanner, verdict } of round.verdicts) {
      if (verdict.outcome !== "infected") continue;
      return { outcome: "infected", threat: verdict.threat, scanner: scanner.name, stamps: { [scanner.name]: verdict.stamp } };
    }
    signal.throwIfAborted();
    const replaced = places === undefined ? undefined : soleReplacement(round);
    // Blocking for good what could be handed on a moment later helps nobody.
    if (replaced !== undefined) for (const failure of round.failures) throw failure;
    return replaced ?? refused(round, "modified") ?? this.#combine(round);
  }

  /**
   * Asks all required scanners whether a replacement is clean: bytes that nobody acquitted never leave. Its maker is asked as well, for that it
   * sent them is no verdict on them: a server may append a line to what it could not mend, or never have looked. From a maker that sends something
   * else once more, nobody learns whether it found something again or only sets the date anew, so that is an objection, too.
   * @returns why it may not be handed on; undefined when it may.
   * @throws whatever keeps a scanner from a verdict: what the operator lets pass for want of one is media, not what came in its stead.
   */
  async refuseReplacement(subject: ScanSubject, signal: AbortSignal): Promise<string | undefined> {
    const { verdicts, failures } = await this.#askAll(this.#scanners, subject, signal, ({ outcome }) => outcome !== "clean");
    for (const { scanner, verdict } of verdicts) {
      if (verdict.outcome !== "clean") return `${scanner.name} says of the replacement: ${verdict.outcome}`;
    }
    signal.throwIfAborted();
    for (const failure of failures) throw failure;
    return undefined;
  }

  /**
   * Everyone's answer; once one of them `settles` it, the others are cancelled. Whose clean came to nothing while another one was waited for (its canaries
   * were not caught, or its ISTag is another one) is asked again.
   */
  async #askAll(
    scanners: readonly Scanner[],
    subject: ScanSubject,
    signal: AbortSignal,
    settles: (verdict: ScanVerdict) => boolean,
    places?: () => Place,
  ): Promise<Round> {
    let round = await this.#askOnce(scanners, subject, signal, settles, places);
    // Where one alone is asked, nobody was waited for.
    for (let times = 1; scanners.length > 1; times += 1) {
      const { verdicts, failures } = round;
      const annulled = verdicts.filter(isAnnulled);
      if (annulled.length === 0 || failures.length > 0 || signal.aborted) break;
      if (verdicts.some(({ verdict }) => settles(verdict))) break;
      const left = verdicts.filter((said) => !annulled.includes(said));
      if (times === TRIES) return { verdicts: left, failures: annulled.map(({ scanner }) => changesTooOften(scanner)) };
      const asked = annulled.map(({ scanner }) => scanner);
      const again = await this.#askOnce(asked, subject, signal, settles, places);
      round = { verdicts: [...left, ...again.verdicts], failures: again.failures };
    }
    return round;
  }

  async #askOnce(
    scanners: readonly Scanner[],
    subject: ScanSubject,
    signal: AbortSignal,
    settles: (verdict: ScanVerdict) => boolean,
    places: (() => Place) | undefined,
  ): Promise<Round> {
    // Where one alone is asked, nobody is to be cancelled.
    const settled = scanners.length > 1 ? new LinkedController(signal) : undefined;
    const scanSignal = settled?.signal ?? signal;
    const verdicts: Said[] = [];
    const failures: unknown[] = [];
    await Promise.all(
      scanners.map(async (scanner) => {
        try {
          const verdict = await this.#ask(scanner, subject, scanSignal, places?.());
          verdicts.push({ scanner, verdict });
          if (settles(verdict)) settled?.abort(new Error("another scanner settled it"));
        } catch (error) {
          failures.push(error);
        }
      }),
    );
    settled?.[Symbol.dispose]();
    return { verdicts, failures };
  }

  #combine(round: Round): SharedDecision {
    const { onUnavailable, onUnscannable } = this.#options;
    const { verdicts, failures } = round;
    const unscannable = refused(round, "unscannable");
    if (unscannable !== undefined && onUnscannable === "block") return unscannable;
    for (const failure of failures) if (onUnavailable === "block" || !isUnavailable(failure)) throw failure;
    const [failure] = failures;
    if (failure !== undefined) return { outcome: "unscanned", why: failure instanceof Error ? failure.message : "unknown failure" };
    if (unscannable !== undefined) return { outcome: "unscanned", why: unscannable.why };
    return { outcome: "clean", stamps: Object.fromEntries(verdicts.map(({ scanner, verdict }) => [scanner.name, verdict.stamp])) };
  }

  async #ask(scanner: Scanner, subject: ScanSubject, signal: AbortSignal, place: Place | undefined): Promise<ScanVerdict> {
    const started = performance.now();
    let outcome: ScanOutcome = "failed";
    try {
      const told = contextFor(scanner, subject);
      const verdict = await scanner.scan(place === undefined ? told : { ...told, replacement: () => place.create() }, signal);
      outcome = verdict.outcome;
      return verdict;
    } catch (error) {
      // Its answer was there, however its end is told: nothing that the operator lets pass for want of a verdict.
      if (place?.overflowed !== true) throw error;
      outcome = "modified";
      return { outcome, why: "what the scanner sent in its stead is larger than media may be", stamp: { tag: "", at: 0 } };
    } finally {
      // A scan that was cancelled says nothing about its scanner.
      if (!signal.aborted || outcome !== "failed") this.#scanned(scanner.name, outcome, performance.now() - started);
    }
  }
}

function isAnnulled({ scanner, verdict }: Said): boolean {
  return verdict.outcome === "clean" && !scanner.upholds(verdict.stamp, "clean");
}

function changesTooOften({ name }: Scanner): GatewayError {
  return new GatewayError("scanner_unavailable", { detail: `${name}: what it says does not hold until the others have answered` });
}

function refused({ verdicts }: Round, outcome: "modified" | "unscannable") {
  for (const { scanner, verdict } of verdicts) {
    if (verdict.outcome === outcome) return { outcome, why: verdict.why, scanner: scanner.name } as const;
  }
  return undefined;
}

/** One scanner's replacement, if all that the others said is clean. */
function soleReplacement({ verdicts }: Round): Replaced | undefined {
  const [objection, ...more] = verdicts.filter(({ verdict }) => verdict.outcome !== "clean");
  if (objection === undefined || more.length > 0) return undefined;
  const { scanner, verdict } = objection;
  if (verdict.outcome !== "modified" || verdict.replacement === undefined) return undefined;
  return { outcome: "replaced", why: verdict.why, by: scanner, replacement: verdict.replacement };
}

/** `beyond_proof` is none of these: that a service can't be relied on with such media is no accident that passes. */
function isUnavailable(failure: unknown): boolean {
  return failure instanceof GatewayError && failure.code === "scanner_unavailable";
}

function stillStands(scanner: Scanner, { outcome, stamps }: { readonly outcome: KeptOutcome; readonly stamps: Stamps }): boolean {
  const stamp = stamps[scanner.name];
  return stamp !== undefined && scanner.upholds(stamp, outcome);
}
