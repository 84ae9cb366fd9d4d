/** What the pipeline asks of anything that can tell clean from infected. */
import type { DetectedType } from "../media/mime.ts";

/** The decrypted bytes to be scanned. They may still be arriving. */
export interface ScanSubject {
  /** Exact number of bytes that `open` yields. */
  readonly size: number;
  /** Known only when a list or a scanner asks for it; what an uploader claims is never used. */
  readonly type: DetectedType | undefined;
  /**
   * A pass over the bytes from the first one; every scanner, and every second try, opens its own. It throws when the bytes can't be had
   * to the end, and the scan then ends with that very error.
   */
  open(): AsyncIterable<Uint8Array>;
}

/** What a scanner's verdict rests on: its signatures' identity (ICAP: ISTag) and when it was given (ms since the epoch). */
export interface Stamp {
  readonly tag: string;
  readonly at: number;
}

export type ScanVerdict =
  | { readonly outcome: "clean"; readonly stamp: Stamp }
  | { readonly outcome: "infected"; readonly stamp: Stamp; readonly threat: string }
  /** Other bytes came back than were sent, without a word on why: a block page, a sanitised file. Never the original's acquittal. */
  | { readonly outcome: "modified"; readonly stamp: Stamp; readonly why: string }
  /** The scanner says that it could not look inside: encrypted, too deep, too large for it. */
  | { readonly outcome: "unscannable"; readonly stamp: Stamp; readonly why: string };

/** Of the verdicts that are kept. */
export type KeptOutcome = "clean" | "infected";

export interface ScannerHealth {
  readonly ready: boolean;
  /** Why it is not ready, or what is missing although it is; in words that an operator can act on. */
  readonly problems: readonly string[];
}

export interface Scanner extends AsyncDisposable {
  readonly name: string;
  /** Names all that shapes its verdicts besides the bytes (service, method, options); part of the verdict's key. */
  readonly policy: string;
  /** Whether `ScanSubject.type` is used. */
  readonly needsType: boolean;
  /** How many scans it takes at once; past that, they wait in line inside `scan`. */
  readonly capacity: number;
  health(): ScannerHealth;
  /** Proves itself for the first time (canaries); resolves when it has passed or failed, never rejects. It then proves itself again by itself. */
  start(): Promise<void>;
  /**
   * @throws GatewayError `scanner_unavailable` when no verdict can be had, `too_large` never: the pipeline checks sizes.
   *   Whatever `subject.open()` throws, and the signal's reason, come through as they are.
   */
  scan(subject: ScanSubject, signal: AbortSignal): Promise<ScanVerdict>;
  /** Whether such a verdict, given under this stamp, still counts. */
  upholds(stamp: Stamp, outcome: KeptOutcome): boolean;
}
