/** Up to which size a service scans: found by canaries of different sizes. */

import { MIN_CANARY_SIZE } from "./large-canary.ts";

/**
 * What came of one canary: `acquitted` when the service said anything but infected, `failed` when it answered that it could not scan it,
 * `unanswered` when nothing can be learned from it.
 */
export type Attempt = "infected" | "acquitted" | "failed" | "unanswered";

export interface FoundSize {
  /** The largest that was caught; 0: none. */
  readonly caught: number;
  /** The smallest that was acquitted; undefined: none. */
  readonly acquitted: number | undefined;
  /** False: it ended early, and a larger size may hold. */
  readonly complete: boolean;
}

/** Taken for granted of a service that caught its canaries, until something speaks against it. Tried first, since it takes no time. */
export const ASSUMED_SIZE = 1024 * 1024;
/** How far the largest that is caught may be from the smallest that is not. */
const PRECISION = 1.1;

/**
 * Tries a small one, then the one that is wanted, and if that is missed, sizes in between, until the limit is known within 10 %: at most 9
 * canaries up to 4 GiB, and 2 more where the limit shows in failures. A service is taken to scan whatever is smaller than what it scanned.
 */
export async function searchSize(wanted: number, attempt: (size: number) => Promise<Attempt>): Promise<FoundSize> {
  let caught = 0;
  let missed: { readonly size: number; readonly how: "acquitted" | "failed" } | undefined;
  let acquitted: number | undefined;
  let next: number | undefined = Math.min(ASSUMED_SIZE, wanted);
  while (next !== undefined) {
    const outcome = await attempt(next);
    if (outcome === "unanswered") return { caught, acquitted, complete: false };
    if (outcome === "infected") caught = next;
    else missed = { size: next, how: outcome };
    if (outcome === "acquitted") acquitted = next;
    next = nextSize(caught, missed?.size, wanted);
  }
  if (caught >= wanted || missed?.how !== "failed") return { caught, acquitted, complete: true };
  // Failures at every size say nothing about sizes.
  if (caught === 0) return { caught, acquitted, complete: false };
  const found = await confirm(caught, missed.size, acquitted, attempt);
  return found.caught >= wanted ? { ...found, complete: true } : found;
}

/** An engine that is away for a moment fails at any size: it counts as a limit when what was caught is caught again, and what failed fails again. */
async function confirm(
  caught: number,
  failed: number,
  acquitted: number | undefined,
  attempt: (size: number) => Promise<Attempt>,
): Promise<FoundSize> {
  const again = await attempt(caught);
  if (again === "acquitted") return { caught: 0, acquitted: caught, complete: false };
  if (again !== "infected") return { caught, acquitted, complete: false };
  const beyond = await attempt(failed);
  if (beyond === "infected") return { caught: failed, acquitted, complete: false };
  return { caught, acquitted: beyond === "acquitted" ? failed : acquitted, complete: beyond !== "unanswered" };
}

function nextSize(caught: number, missed: number | undefined, wanted: number): number | undefined {
  if (missed === undefined) return caught < wanted ? wanted : undefined;
  const low = Math.max(caught, MIN_CANARY_SIZE);
  return missed > low * PRECISION ? Math.round(Math.sqrt(low * missed)) : undefined;
}
