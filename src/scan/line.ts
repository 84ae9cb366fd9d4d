/** A bounded number of slots, and a bounded line before them. */
import { GatewayError } from "../errors.ts";
import { Held } from "./held.ts";

/** First come, first served. */
export class Line {
  readonly #slots: number;
  readonly #maxWaiting: number;
  #taken = 0;
  readonly #waiting = new Set<(slot: Disposable) => void>();

  constructor(slots: number, maxWaiting: number) {
    this.#slots = slots;
    this.#maxWaiting = maxWaiting;
  }

  get taken(): number {
    return this.#taken;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** A slot if one is free now. */
  tryAcquire(): Disposable | undefined {
    if (this.#taken >= this.#slots) return undefined;
    this.#taken += 1;
    return new Held(this.#pass);
  }

  /**
   * A slot, when it is this caller's turn.
   * @throws GatewayError `rate_limited` when the line is full; the signal's reason.
   */
  async acquire(signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted();
    const free = this.tryAcquire();
    if (free !== undefined) return free;
    if (this.#waiting.size >= this.#maxWaiting) throw new GatewayError("rate_limited", { detail: "the queue is full" });
    return new Promise<Disposable>((resolve, reject) => {
      const turn = (slot: Disposable): void => {
        signal.removeEventListener("abort", abort);
        resolve(slot);
      };
      const abort = (): void => {
        this.#waiting.delete(turn);
        reject(signal.reason as Error);
      };
      signal.addEventListener("abort", abort, { once: true });
      this.#waiting.add(turn);
    });
  }

  /** The slot changes hands without becoming free in between, so nobody jumps the line. */
  readonly #pass = (): void => {
    const [next] = this.#waiting;
    if (next === undefined) this.#taken -= 1;
    else {
      this.#waiting.delete(next);
      next(new Held(this.#pass));
    }
  };
}
