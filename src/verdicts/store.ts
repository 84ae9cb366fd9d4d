/** What is remembered between requests, and where: `memory` in this process, `shared-verdicts` for several. */

/** What every scanner's verdict rested on, by scanner name. */
export type Stamps = Readonly<Record<string, { readonly tag: string; readonly at: number }>>;

export type VerdictRecord =
  | { readonly outcome: "clean"; readonly stamps: Stamps }
  | { readonly outcome: "infected"; readonly stamps: Stamps; readonly threat: string; readonly scanner: string }
  /** The type is on no allow-list or on a block-list; rests on the bytes and the lists alone. */
  | { readonly outcome: "type_forbidden"; readonly mime: string };

/** A verdict, and until when it is kept (ms since the epoch); no copy of it counts for longer. */
export interface KeptVerdict {
  readonly record: VerdictRecord;
  readonly expiresAt: number;
}

/** What a source (mxc and variant; or ciphertext hash, key and IV) held when its bytes were last hashed. */
export interface SourceRecord {
  /** The keyed digest of the decrypted bytes together with the policy: the key of the verdict. */
  readonly content: string;
  /** The keyed digest of the decrypted bytes alone: what operators block or allow. */
  readonly digest: string;
  /** Bytes as they came. */
  readonly size: number;
  /**
   * SHA-256 of each piece of `PIECE_SIZE` bytes as they came, the last one shorter; concatenated. Where there are several, that of the first `HEAD_SIZE`
   * bytes comes before them.
   */
  readonly pieces: Buffer;
  /** The content's verdict, as far as it is known without asking for it. */
  readonly verdict?: KeptVerdict;
}

/** Known media is released to a client in pieces of this many bytes, each only after its digest matched. */
export const PIECE_SIZE = 1024 * 1024;
/** The beginning of its first piece is released before, so that nobody waits for all of that. */
export const HEAD_SIZE = 64 * 1024;
export const DIGEST_SIZE = 32;

/** How many digests `SourceRecord.pieces` has, of media of so many bytes. */
export function digestCount(size: number): number {
  return Math.ceil(size / PIECE_SIZE) + (size > PIECE_SIZE ? 1 : 0);
}

/**
 * Keys are keyed digests (see `keys`), never names or plain hashes. A store that can't answer says "unknown" and
 * logs why; it never rejects and never makes a request wait longer than its own small limit.
 */
export interface VerdictStore extends AsyncDisposable {
  source(key: string): Promise<SourceRecord | undefined>;
  /** With its verdict, so that whoever asks for the source needs not ask again. */
  rememberSource(key: string, record: SourceRecord): Promise<void>;
  forgetSource(key: string): Promise<void>;
  /** @param fresh as the other instances know it by now; what this process knows may be as old as a minute */
  verdict(key: string, fresh?: boolean): Promise<KeptVerdict | undefined>;
  /**
   * @param stays whether a verdict that is there by now stays in spite of this one, which then does not count; asked at the moment of writing
   * @returns the verdict that counts from now on; undefined when such verdicts are not kept
   */
  rememberVerdict(key: string, record: VerdictRecord, stays?: (standing: KeptVerdict) => boolean): Promise<KeptVerdict | undefined>;
  /** What readiness says of it; a store that is away degrades, it does not stop the gateway. */
  health(): { readonly degraded: boolean; readonly problems: readonly string[] };
}
