/** One piece of work for all who ask for the same thing at the same time. */

export interface Flight<T> {
  /** Whether this caller's own work is the flight. */
  readonly led: boolean;
  readonly result: Promise<T>;
}

/**
 * Invariants: at most one flight a key; a flight is gone from the table before anybody hears of its result, so whoever comes back after a
 * failure leads a new one; joining never waits, so no two callers can both find the table empty.
 */
export class SingleFlight<T> {
  readonly #flights = new Map<string, Promise<T>>();

  get size(): number {
    return this.#flights.size;
  }

  join(key: string, work: () => Promise<T>): Flight<T> {
    const running = this.#flights.get(key);
    if (running !== undefined) return { led: false, result: running };
    const result = work();
    const over = (): void => void this.#flights.delete(key);
    // The first to hear of it, and of a failure perhaps the only one: everyone's wait can be over before the work is.
    result.then(over, over);
    this.#flights.set(key, result);
    return { led: true, result };
  }
}
