/** What `verdict` needs of the gateway's parts, as it needs it: it sees neither Redis nor files itself. */

/** `forget` ends the block and the allow before it, and voids the verdicts. */
export type OverrideKind = "block" | "allow" | "forget";

/** An override as it is kept. */
export interface KeptOverride {
  readonly kind: OverrideKind;
  /** In lower-case hex. */
  readonly sha256: string;
  readonly reason: string;
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly expiresAt?: number;
}

export interface KeptOverrides {
  readonly records: readonly KeptOverride[];
  readonly problems: readonly string[];
}

/** What scanners said, as it is remembered under the configuration's policy. */
export type RememberedVerdict = { readonly stamps?: Readonly<Record<string, { readonly tag: string; readonly at: number }>> } & (
  | { readonly outcome: "clean" }
  | { readonly outcome: "infected"; readonly threat: string; readonly scanner: string }
  | { readonly outcome: "type_forbidden"; readonly mime: string }
);

/**
 * What the command needs of the gateway's parts. All may throw an error with the code `overrides_unusable`, whose message is one line
 * for the operator.
 */
export interface VerdictTools extends AsyncDisposable {
  readonly overrides: {
    /** What counts now, and what is wrong with the rest. */
    read(): Promise<KeptOverrides>;
    /** The same of one content. */
    readOf(sha256: Buffer): Promise<KeptOverrides>;
    /** Resolves once it is kept, and gateways have been told. */
    write(sha256: Buffer, change: Pick<KeptOverride, "kind" | "reason" | "expiresAt">): Promise<void>;
  };
  /** Whether the list of blocked hashes names it; undefined where there is no list. */
  readonly isListed?: (sha256: Buffer) => Promise<boolean>;
  /** The verdict that gateways share, as it holds for this asker; undefined where they share none. */
  readonly lookup?: (sha256: Buffer, asker: Asker) => Promise<RememberedVerdict | undefined>;
  /** By whom verdicts are kept apart, since scanners are told of it. */
  readonly keptApartBy: readonly (keyof Asker)[];
}

/** Who asks, where scanners are told. */
export interface Asker {
  /** A Matrix user ID. */
  readonly user?: string;
  readonly clientAddress?: string;
}
