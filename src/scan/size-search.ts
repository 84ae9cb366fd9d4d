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
 * canaries up to 4 GiB. A service is taken to scan whatever is smaller than what it scanned.
 */
export async function searchSize(wanted: number, attempt: (size: number) => Promise<Attempt>): Promise<FoundSize> {
  let caught = 0;
  let missed: number | undefined;
  let acquitted: number | undefined;
  let next: number | undefined = Math.min(ASSUMED_SIZE, wanted);
  while (next !== undefined) {
    const outcome = await attempt(next);
    if (outcome === "unanswered") return { caught, acquitted, complete: false };
    if (outcome === "infected") caught = next;
    else missed = next;
    if (outcome === "acquitted") acquitted = next;
    next = nextSize(caught, missed, wanted);
  }
  // All failed, although its canaries were caught: that says nothing about sizes.
  return { caught, acquitted, complete: caught > 0 || acquitted !== undefined };
}

function nextSize(caught: number, missed: number | undefined, wanted: number): number | undefined {
  if (missed === undefined) return caught < wanted ? wanted : undefined;
  const low = Math.max(caught, MIN_CANARY_SIZE);
  return missed > low * PRECISION ? Math.round(Math.sqrt(low * missed)) : undefined;
}
