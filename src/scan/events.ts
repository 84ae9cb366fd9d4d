/** What happens on the way that log and metrics tell, whoever's request it was. */
import type { ScanOutcome } from "../observability/metrics.ts";
import type { MediaRequest } from "./request.ts";

export interface PipelineEvents {
  /** Media is let through without a verdict, because the operator chose so. */
  unscanned(request: MediaRequest, why: string): void;
  /** Known media came back with other bytes; they are scanned anew. */
  changed(request: MediaRequest, why: string): void;
  /** Work that no client waits for any more ended in an error. */
  abandoned(request: MediaRequest, error: unknown): void;
  /** The homeserver was asked for media; `bytes` of it came, in `milliseconds`. */
  downloaded(ok: boolean, bytes: number, milliseconds: number): void;
  /** A scanner looked at media, or could not. */
  scanned(scanner: string, outcome: ScanOutcome, milliseconds: number): void;
}
