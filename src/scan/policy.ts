/** What several scanners' verdicts come to, and which types may pass. */
import { type DetectedType, isAllowed, isBlocked } from "../media/mime.ts";
import { GatewayError } from "../errors.ts";
import type { Stamps, VerdictRecord } from "../verdicts/store.ts";
import type { PipelineEvents } from "./events.ts";
import type { KeptOutcome, Scanner, ScanSubject, ScanVerdict } from "./scanner.ts";

/** What happens to one content. Only those that a `VerdictRecord` can say are ever kept. */
export type Decision =
  | VerdictRecord
  | { readonly outcome: "modified" | "unscannable"; readonly why: string; readonly scanner: string }
  /** Let through without a proof, because the operator chose so. */
  | { readonly outcome: "unscanned"; readonly why: string };

export interface PolicyOptions {
  readonly onUnavailable: "block" | "allow";
  readonly onUnscannable: "block" | "allow";
  /** Nothing but these, if it is there at all. */
  readonly allowedTypes: readonly string[] | undefined;
  readonly blockedTypes: readonly string[];
}

export class Policy {
  /** Part of a verdict's key: verdicts made under another policy are other verdicts. */
  readonly fingerprint: string;
  /** Whether the type of the bytes has to be known at all. */
  readonly needsType: boolean;
  readonly #scanners: readonly Scanner[];
  readonly #options: PolicyOptions;
  readonly #allowed: ReadonlySet<string> | undefined;
  readonly #blocked: ReadonlySet<string>;

  readonly #scanned: PipelineEvents["scanned"];

  constructor(scanners: readonly Scanner[], options: PolicyOptions, events: Pick<PipelineEvents, "scanned">) {
    // Nobody to ask would mean that everybody agreed.
    if (scanners.length === 0) throw new TypeError("there is no scanner");
    this.#scanners = scanners;
    this.#options = options;
    this.#scanned = (scanner, outcome, milliseconds) => events.scanned(scanner, outcome, milliseconds);
    this.#allowed = options.allowedTypes === undefined ? undefined : new Set(options.allowedTypes);
    this.#blocked = new Set(options.blockedTypes);
    this.fingerprint = JSON.stringify([
      scanners.map((scanner) => [scanner.name, scanner.policy]),
      options.allowedTypes?.toSorted() ?? null,
      options.blockedTypes.toSorted(),
    ]);
    this.needsType = this.#allowed !== undefined || this.#blocked.size > 0 || scanners.some((scanner) => scanner.needsType);
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
   * Asks all scanners at the same time. One that says infected settles it, and the others are cancelled; clean needs all of them. Nothing
   * that one scanner could not do outweighs what another one refused.
   * @throws GatewayError `scanner_unavailable` unless the operator lets such media pass; whatever the subject throws.
   */
  async judge(subject: ScanSubject, signal: AbortSignal): Promise<Decision> {
    const settled = new AbortController();
    const scanSignal = AbortSignal.any([signal, settled.signal]);
    let infected: Decision | undefined;
    const verdicts: (readonly [scanner: string, verdict: ScanVerdict])[] = [];
    const failures: unknown[] = [];
    await Promise.all(
      this.#scanners.map(async (scanner) => {
        try {
          const verdict = await this.#ask(scanner, subject, scanSignal);
          verdicts.push([scanner.name, verdict]);
          if (verdict.outcome !== "infected" || infected !== undefined) return;
          const stamps = { [scanner.name]: verdict.stamp };
          infected = { outcome: "infected", threat: verdict.threat, scanner: scanner.name, stamps };
          settled.abort(new Error("another scanner found it infected"));
        } catch (error) {
          failures.push(error);
        }
      }),
    );
    if (infected !== undefined) return infected;
    signal.throwIfAborted();
    return refused(verdicts, "modified") ?? this.#combine(verdicts, failures);
  }

  #combine(verdicts: readonly (readonly [string, ScanVerdict])[], failures: readonly unknown[]): Decision {
    const { onUnavailable, onUnscannable } = this.#options;
    const unscannable = refused(verdicts, "unscannable");
    if (unscannable !== undefined && onUnscannable === "block") return unscannable;
    for (const failure of failures) if (onUnavailable === "block" || !isUnavailable(failure)) throw failure;
    const [failure] = failures;
    if (failure !== undefined) return { outcome: "unscanned", why: failure instanceof Error ? failure.message : "unknown failure" };
    if (unscannable !== undefined) return { outcome: "unscanned", why: unscannable.why };
    return { outcome: "clean", stamps: Object.fromEntries(verdicts.map(([scanner, { stamp }]) => [scanner, stamp])) };
  }

  async #ask(scanner: Scanner, subject: ScanSubject, signal: AbortSignal): Promise<ScanVerdict> {
    const started = performance.now();
    let outcome: Parameters<PipelineEvents["scanned"]>[1] = "failed";
    try {
      const verdict = await scanner.scan(subject, signal);
      outcome = verdict.outcome;
      return verdict;
    } finally {
      // A scan that was cancelled says nothing about its scanner.
      if (!signal.aborted || outcome !== "failed") this.#scanned(scanner.name, outcome, performance.now() - started);
    }
  }
}

function refused(verdicts: readonly (readonly [string, ScanVerdict])[], outcome: "modified" | "unscannable") {
  for (const [scanner, verdict] of verdicts) if (verdict.outcome === outcome) return { outcome, why: verdict.why, scanner } as const;
  return undefined;
}

function isUnavailable(failure: unknown): boolean {
  return failure instanceof GatewayError && failure.code === "scanner_unavailable";
}

function stillStands(scanner: Scanner, { outcome, stamps }: { readonly outcome: KeptOutcome; readonly stamps: Stamps }): boolean {
  const stamp = stamps[scanner.name];
  return stamp !== undefined && scanner.upholds(stamp, outcome);
}
