/** Who may come in, and who waits: bounded numbers of slots, bounded lines before them, and a share for each client. */
import { GatewayError } from "../errors.ts";

export interface AdmissionOptions {
  /** Media that are downloaded and scanned at once. */
  readonly maxConcurrent: number;
  /** Requests that wait for such a slot. */
  readonly maxQueued: number;
  /** Requests of one client, scans that go on after it hung up included. */
  readonly maxPerClient: number;
}

/** Slots with a line before them: first come, first served. */
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
    return this.#slot();
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

  #slot(): Disposable {
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (!held) return;
        held = false;
        const [next] = this.#waiting;
        if (next === undefined) this.#taken -= 1;
        else {
          // The slot changes hands without becoming free in between, so nobody jumps the line.
          this.#waiting.delete(next);
          next(this.#slot());
        }
      },
    };
  }
}

/** A client's place; given back when the last who holds it lets go. */
export class Entry implements Disposable {
  readonly #leave: () => void;
  #holders = 1;

  constructor(leave: () => void) {
    this.#leave = leave;
  }

  /** Held once more: by a scan that may outlive the request. */
  share(): Disposable {
    this.#holders += 1;
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (held) this.#release();
        held = false;
      },
    };
  }

  #release(): void {
    this.#holders -= 1;
    if (this.#holders === 0) this.#leave();
  }

  [Symbol.dispose](): void {
    this.#release();
  }
}

export class Admission {
  /** Media not known yet: download and scan. A slot ends with the verdict, not with the last byte to a slow reader. */
  readonly scans: Line;
  /** Known media on its way from the homeserver. Apart, so that slow scans never hold it up. */
  readonly transfers: Line;
  readonly #maxPerClient: number;
  readonly #clients = new Map<string, number>();

  constructor(options: AdmissionOptions) {
    this.scans = new Line(options.maxConcurrent, options.maxQueued);
    // A line of its own for those who were promised an answer by somebody else's scan: they cost a download, not a scan.
    this.transfers = new Line(options.maxConcurrent, options.maxQueued * 8);
    this.#maxPerClient = options.maxPerClient;
  }

  /** @throws GatewayError `rate_limited` when this client has its share already. */
  enter(client: string): Entry {
    const inside = this.#clients.get(client) ?? 0;
    if (inside >= this.#maxPerClient) throw new GatewayError("rate_limited", { detail: "too many requests of one client at once" });
    this.#clients.set(client, inside + 1);
    return new Entry(() => {
      const left = (this.#clients.get(client) ?? 1) - 1;
      if (left === 0) this.#clients.delete(client);
      else this.#clients.set(client, left);
    });
  }
}
