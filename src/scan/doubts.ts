/** Times in which a service, as was found out later, may not have worked: what it said then does not count. */
import type { KeptOutcome, Stamp } from "./scanner.ts";

/** Windows of each outcome that are kept apart; of more, the oldest are joined. */
const MAX_WINDOWS = 32;

/** Both ends belong to it. */
interface Window {
  readonly from: number;
  readonly until: number;
}

/** Invariant: what was once doubtful stays so, whatever is added. Joined windows doubt what lies between them as well. */
export class Doubts {
  readonly #windows: Record<KeptOutcome, Window[]> = { clean: [], infected: [] };

  /** Verdicts `of` this outcome from the one moment to the other, both included, are doubtful (ms, as in stamps). */
  add(of: KeptOutcome, from: number, until: number): void {
    const windows = this.#windows[of];
    windows.push({ from, until });
    const [first, second] = windows;
    if (first === undefined || second === undefined || windows.length <= MAX_WINDOWS) return;
    windows.splice(0, 2, { from: Math.min(first.from, second.from), until: Math.max(first.until, second.until) });
  }

  /** Whether a verdict with this outcome, given under this stamp, is doubtful. */
  holds({ at }: Stamp, outcome: KeptOutcome): boolean {
    return this.#windows[outcome].some(({ from, until }) => at >= from && at <= until);
  }
}
