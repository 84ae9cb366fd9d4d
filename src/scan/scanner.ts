/** What the pipeline asks of anything that can tell clean from infected. */
import type { DetectedType } from "../media/mime.ts";

/** The decrypted bytes to be scanned. They may still be arriving. */
export interface ScanSubject {
  /** Exact number of bytes that `open` yields. */
  readonly size: number;
  /** Known only when a list or a scanner asks for it; what an uploader claims is never used. */
  readonly type: DetectedType | undefined;
  /** Who asks, for services that are to be told (DLP). */
  readonly context?: ScanContext;
  /** A place for what a scanner sends back in the media's stead; absent where that would not be handed on anyway. */
  readonly replacement?: () => Promise<Replacement>;
  /**
   * A pass over the bytes from the first one; every scanner, and every second try, opens its own. It throws when the bytes can't be had
   * to the end, and the scan then ends with that very error.
   */
  open(): AsyncIterable<Uint8Array>;
}

/** The identities that a service may be told. */
export type Identity = "client_ip" | "server_ip" | "user";

/** Absent: not known. */
export interface ScanContext {
  /** Addresses in text form; the client's as seen through trusted proxies, the homeserver's as resolved. */
  readonly clientAddress?: string;
  readonly serverAddress?: string;
  /** The Matrix user ID that the homeserver gave for the request's token. */
  readonly user?: string;
}

/** What a scanner sent in the media's stead: written once, then read. Whoever holds it must dispose of it. */
export interface Replacement extends AsyncDisposable {
  /** Bytes so far. */
  readonly size: number;
  /** @throws GatewayError `too_large` beyond the size that media may have. */
  write(bytes: Uint8Array): Promise<void>;
  /** The last byte has been written. */
  end(): void;
  /** A pass over the bytes from the first one. */
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
  | { readonly outcome: "modified"; readonly stamp: Stamp; readonly why: string; readonly replacement?: Replacement }
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
  /** False: advisory. It is asked, and what it says is logged and counted, but decides nothing. */
  readonly required: boolean;
  /** What it is told of who asks; its verdicts count for those alone. */
  readonly identities: readonly Identity[];
  /** How many scans it takes at once; past that, they wait in line inside `scan`. */
  readonly capacity: number;
  health(): ScannerHealth;
  /** Proves itself for the first time (canaries); resolves when it has passed or failed, never rejects. It then proves itself again by itself. */
  start(): Promise<void>;
  /** Resolves once it is known, as well as it can be for now, which of its earlier verdicts still count. */
  readonly settled: Promise<void>;
  /**
   * @throws GatewayError `scanner_unavailable` when no verdict can be had, `too_large` never: the pipeline checks sizes.
   *   Whatever `subject.open()` throws, and the signal's reason, come through as they are.
   */
  scan(subject: ScanSubject, signal: AbortSignal): Promise<ScanVerdict>;
  /** Whether such a verdict, given under this stamp, still counts. */
  upholds(stamp: Stamp, outcome: KeptOutcome): boolean;
}
