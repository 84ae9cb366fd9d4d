/** What changes overrides: the command line's side of them. */
import type { OverrideChange, OverrideRecord } from "./overrides-ledger.ts";
import { OverrideError } from "./overrides.ts";

export interface KeptOverrides {
  /** What neither a `forget` nor the time has ended, and every `forget`. */
  readonly records: readonly OverrideRecord[];
  /** What is wrong with the others. */
  readonly problems: readonly string[];
}

/** Each of these reads what is kept anew. */
export interface OverrideWriter {
  /** @throws OverrideError */
  read(): Promise<KeptOverrides>;
  /** Those of one content alone. @param sha256 of the decrypted content @throws OverrideError */
  readOf(sha256: Buffer): Promise<KeptOverrides>;
  /** Resolves once it is kept. @param sha256 of the decrypted content @throws OverrideError */
  write(sha256: Buffer, change: OverrideChange): Promise<void>;
}

/** A change would be older than what is known of its content, and count for nothing. @param place of that record, for an operator */
export function earlyError(record: OverrideRecord, place: string): OverrideError {
  const when = new Date(record.at).toISOString();
  return new OverrideError(
    `what is known of it is from the future (${when}): set this machine's clock, or, if another one's was wrong, remove ${place}`,
  );
}
