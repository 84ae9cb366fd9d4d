/** Times in which a service, as was found out later, may not have worked: what it said then does not count. */
import type { KeptOutcome, Stamp } from "./scanner.ts";

/** Verdicts `of` this outcome from the one moment to the other, both included, may be wrong (ms since the epoch, as in stamps). */
export interface Doubt {
  readonly of: KeptOutcome;
  readonly from: number;
  readonly until: number;
}

/** Windows of each outcome that are kept apart; of more, the oldest are joined. */
export const MAX_WINDOWS = 32;

/** Both ends belong to it. */
interface Window {
  readonly from: number;
  readonly until: number;
}

/**
 * Invariant: what was once doubtful stays so, whatever is added. Joined windows doubt what lies between them as well. Windows stand in order
 * and apart.
 */
export class Doubts {
  readonly #windows: Record<KeptOutcome, Window[]> = { clean: [], infected: [] };

  constructor(doubts: Iterable<Doubt> = []) {
    for (const doubt of doubts) this.add(doubt);
  }

  /** Returns whether anything became doubtful by it that was not before. */
  add(doubt: Doubt): boolean {
    if (!(doubt.from <= doubt.until) || this.covers(doubt)) return false;
    const apart: Window[] = [];
    let joined: Window = doubt;
    for (const window of this.#windows[doubt.of]) {
      if (window.from <= joined.until && joined.from <= window.until) joined = join(window, joined);
      else apart.push(window);
    }
    const windows = [...apart, { from: joined.from, until: joined.until }].toSorted((one, other) => one.from - other.from);
    const [first, second] = windows;
    if (first !== undefined && second !== undefined && windows.length > MAX_WINDOWS) windows.splice(0, 2, join(first, second));
    this.#windows[doubt.of] = windows;
    return true;
  }

  /** Whether all of it is doubtful already. */
  covers({ of, from, until }: Doubt): boolean {
    return this.#windows[of].some((window) => contains(window, { from, until }));
  }

  /** Whether a verdict with this outcome, given under this stamp, is doubtful. */
  holds({ at }: Stamp, outcome: KeptOutcome): boolean {
    for (const { from, until } of this.#windows[outcome]) if (at >= from && at <= until) return true;
    return false;
  }

  /** All of them, at most `MAX_WINDOWS` of each outcome. */
  *[Symbol.iterator](): Generator<Doubt> {
    for (const outcome of ["clean", "infected"] as const) for (const window of this.#windows[outcome]) yield { of: outcome, ...window };
  }
}

/** Whether the one doubts all that the other does. */
export function includes(one: Doubt, other: Doubt): boolean {
  return one.of === other.of && contains(one, other);
}

function contains(one: Window, other: Window): boolean {
  return one.from <= other.from && other.until <= one.until;
}

function join(one: Window, other: Window): Window {
  return { from: Math.min(one.from, other.from), until: Math.max(one.until, other.until) };
}
