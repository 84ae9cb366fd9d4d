/** What happens on the way that log and metrics tell, whoever's request it was. */
import type { AdviceOutcome, ScanOutcome } from "../observability/metrics.ts";
import type { VerdictRecord } from "../verdicts/store.ts";
import type { Commission } from "./request.ts";

export type InfectedRecord = Extract<VerdictRecord, { readonly outcome: "infected" }>;

export interface PipelineEvents {
  /** Media is let through without a verdict, because the operator chose so. */
  unscanned(commission: Commission, why: string): void;
  /** Known media came back with other bytes; they are scanned anew. */
  changed(commission: Commission, why: string): void;
  /** Content whose last verdict was clean is now found infected. */
  turned(commission: Commission, record: InfectedRecord): void;
  /** Work that no client waits for any more ended in an error. */
  abandoned(commission: Commission, error: unknown): void;
  /** The homeserver was asked for media; `bytes` of it came, in `milliseconds`. */
  downloaded(ok: boolean, bytes: number, milliseconds: number): void;
  /** A scanner looked at media, or could not. */
  scanned(scanner: string, outcome: ScanOutcome, milliseconds: number): void;
  /**
   * An advisory scanner had its say on media that others decide on, or was not heard (`skipped`): too many of its scans were under way, or room was
   * needed. `detail`: the threat, or the reason.
   */
  advised(commission: Commission, scanner: string, outcome: AdviceOutcome, detail: string | undefined): void;
}
