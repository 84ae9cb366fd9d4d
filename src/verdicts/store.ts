/** What is remembered between requests, and where: `memory` in this process, `redis` for all instances. */

/** What every scanner's verdict rested on, by scanner name. */
export type Stamps = Readonly<Record<string, { readonly tag: string; readonly at: number }>>;

export type VerdictRecord =
  | { readonly outcome: "clean"; readonly stamps: Stamps }
  | { readonly outcome: "infected"; readonly stamps: Stamps; readonly threat: string; readonly scanner: string }
  /** The type is on no allow-list or on a block-list; rests on the bytes and the lists alone. */
  | { readonly outcome: "type_forbidden"; readonly mime: string };

/** What a source (mxc and variant; or ciphertext hash, key and IV) held when its bytes were last hashed. */
export interface SourceRecord {
  /** The keyed digest of the decrypted bytes together with the policy: the key of the verdict. */
  readonly content: string;
  /** Bytes as they came. */
  readonly size: number;
  /** SHA-256 of each piece of `PIECE_SIZE` bytes as they came, the last one shorter; concatenated. */
  readonly pieces: Buffer;
}

/** Known media is released to a client in pieces of this many bytes, each only after its digest matched. */
export const PIECE_SIZE = 1024 * 1024;

/**
 * Keys are keyed digests (see `keys`), never names or plain hashes. A store that can't answer says "unknown" and
 * logs why; it never rejects and never makes a request wait longer than its own small limit.
 */
export interface VerdictStore extends AsyncDisposable {
  source(key: string): Promise<SourceRecord | undefined>;
  rememberSource(key: string, record: SourceRecord): Promise<void>;
  forgetSource(key: string): Promise<void>;
  verdict(key: string): Promise<VerdictRecord | undefined>;
  rememberVerdict(key: string, record: VerdictRecord): Promise<void>;
  /** What readiness says of it; a store that is away degrades, it does not stop the gateway. */
  health(): { readonly degraded: boolean; readonly problems: readonly string[] };
}
