/** Overrides as they were read somewhere, on their way into the ledger. */
import type { OverrideLedger, OverrideRecord } from "./overrides-ledger.ts";
import { counted } from "./overrides-problems.ts";
import { inTurns } from "./overrides-turns.ts";

export interface ReadOverride {
  /** Of the content that it is kept for; undefined when its record is that of another one. */
  readonly digest: string | undefined;
  readonly record: OverrideRecord;
}

/** What was read and does not count. */
export interface SetAside<Read extends ReadOverride = ReadOverride> {
  /** From the future. */
  readonly early: readonly Read[];
  /** There are too many. */
  readonly unplaced: readonly Read[];
  readonly misplaced: readonly Read[];
}

export const NONE_ASIDE: SetAside = { early: [], unplaced: [], misplaced: [] };

/** Has the ledger learn all of them, in whatever order they come. */
export async function learnAll<Read extends ReadOverride>(ledger: OverrideLedger, all: Iterable<Read>): Promise<SetAside<Read>> {
  const early: Read[] = [];
  const unplaced: Read[] = [];
  const misplaced: Read[] = [];
  for await (const read of inTurns(all)) {
    const { digest, record } = read;
    const learned = digest === undefined ? "misplaced" : ledger.learn(digest, record);
    if (learned === "early") early.push(read);
    if (learned === "no_room") unplaced.push(read);
    if (learned === "misplaced") misplaced.push(read);
  }
  return { early, unplaced, misplaced };
}

/** In words; empty when nothing was set aside. @param most contents that are kept */
export function asideWords({ early, unplaced, misplaced }: SetAside, most: number): string[] {
  return [
    ...(early.length === 0 ? [] : [`${counted(early.length, "override")} from the future ignored: a clock is wrong`]),
    ...(unplaced.length === 0 ? [] : [`${counted(unplaced.length, "override")} ignored: no more than ${most} are kept`]),
    ...(misplaced.length === 0 ? [] : [`${counted(misplaced.length, "override")} ignored: made under another secret`]),
  ];
}
