/** What is known of media that was scanned before: verdicts that still count, under what operators say of the content. */
import { GatewayError } from "../errors.ts";
import type { OverrideBook } from "../verdicts/overrides.ts";
import type { KeptVerdict, SourceRecord, VerdictStore } from "../verdicts/store.ts";
import type { Decision, Overridden, Policy, SharedDecision } from "./policy.ts";

export interface RecallOptions {
  readonly verdicts: VerdictStore;
  readonly policy: Policy;
  readonly overrides: OverrideBook;
}

/** What a source holds, and what becomes of it. */
export interface Finding<D extends Decision = Decision> {
  readonly source: SourceRecord;
  readonly decision: D;
}

/** A finding that holds for others than the request whose scan made it. */
export type SharedFinding = Finding<SharedDecision>;

/** The scanners that are asked, and what they said before. */
export interface Panel {
  readonly policy: Policy;
  readonly recall: Recall;
}

export function panelOf(options: RecallOptions): Panel {
  return { policy: options.policy, recall: new Recall(options) };
}

export class Recall {
  readonly #verdicts: VerdictStore;
  readonly #policy: Policy;
  readonly #overrides: OverrideBook;

  constructor({ verdicts, policy, overrides }: RecallOptions) {
    this.#verdicts = verdicts;
    this.#policy = policy;
    this.#overrides = overrides;
  }

  /** What is to be done with what this source held, if that is known. */
  async source(key: string): Promise<SharedFinding | undefined> {
    const source = await this.#verdicts.source(key);
    if (source === undefined) return undefined;
    const override = this.override(source.digest);
    if (override?.outcome === "blocked") return { source, decision: override };
    const last = source.verdict;
    // A verdict that counts no more still tells that the type was not refused.
    if (override !== undefined && last !== undefined && last.record.outcome !== "type_forbidden") return { source, decision: override };
    const verdict = last !== undefined && this.counts(source.digest, last) ? last : await this.#anew(key, source);
    return verdict && { source, decision: this.overrule(source.digest, verdict.record) };
  }

  /** Whether a kept verdict still rests on what it rested on, and nobody wants it forgotten. */
  counts(digest: string, { record }: KeptVerdict): boolean {
    if (record.outcome === "type_forbidden") return true;
    const forgottenAt = this.#overrides.forgottenAt(digest);
    return Object.values(record.stamps).every(({ at }) => at > forgottenAt) && this.#policy.upholds(record);
  }

  /** What operators say of this content. */
  override(digest: string): Overridden | undefined {
    const override = this.#overrides.of(digest);
    return override && { outcome: override.kind === "block" ? "blocked" : "allowed", reason: override.reason };
  }

  /** False only if no content whatever is allowed by hand. */
  get allowsAny(): boolean {
    return this.#overrides.allowsAny;
  }

  /** A decision as operators have it now. A block wins over everything; an allow over whatever scanners say, but not over the lists of types. */
  overrule<D extends Decision>(digest: string, decision: D): D | Overridden {
    const override = this.override(digest);
    if (override === undefined || (override.outcome === "allowed" && decision.outcome === "type_forbidden")) return decision;
    return override;
  }

  /** The same bytes, for as long as nobody blocks them. @throws GatewayError `blocked` in the place of the next part. */
  async *unlessBlocked<Part>(digest: string, body: AsyncIterable<Part>): AsyncGenerator<Part> {
    for await (const part of body) {
      this.throwIfBlocked(digest);
      yield part;
    }
  }

  /** @throws GatewayError `blocked`. */
  throwIfBlocked(digest: string): void {
    const override = this.override(digest);
    if (override?.outcome === "blocked") throw new GatewayError("blocked", { detail: override.reason });
  }

  /** The content's verdict where the copy does not count: it may have been made anew from another source, or by another instance. */
  async #anew(key: string, source: SourceRecord): Promise<KeptVerdict | undefined> {
    const verdict = await this.#verdicts.verdict(source.content, true);
    if (verdict === undefined || !this.counts(source.digest, verdict)) return undefined;
    await this.#verdicts.rememberSource(key, { ...source, verdict });
    return verdict;
  }
}
