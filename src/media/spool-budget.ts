/** Room for spools: what all of them together may hold in memory and on disk, and the line of those that wait for it. */
import { GatewayError } from "../errors.ts";

export interface BudgetOptions {
  /** Bytes of all spools together in memory. */
  readonly memory: number;
  /** Bytes of all spools together in files. */
  readonly disk: number;
  /**
   * A spool of at most this many bytes needs memory only. So does a larger one while half of the memory stays free for others; else it needs disk for all
   * of it, and takes this much memory if it can.
   */
  readonly inMemory: number;
}

/** Bytes that are set aside for one spool. They only ever shrink. */
export class Reservation {
  readonly #shrunk: (memory: number, disk: number) => void;
  #memory: number;
  #disk: number;

  /** @param shrunk is told how much of each was given back. */
  constructor(memory: number, disk: number, shrunk: (memory: number, disk: number) => void) {
    this.#memory = memory;
    this.#disk = disk;
    this.#shrunk = shrunk;
  }

  get memory(): number {
    return this.#memory;
  }

  get disk(): number {
    return this.#disk;
  }

  /** Keeps at most this much of each, and gives the rest back. */
  shrinkTo(memory: number, disk: number): void {
    const freedMemory = Math.max(0, this.#memory - memory);
    const freedDisk = Math.max(0, this.#disk - disk);
    if (freedMemory === 0 && freedDisk === 0) return;
    this.#memory -= freedMemory;
    this.#disk -= freedDisk;
    this.#shrunk(freedMemory, freedDisk);
  }
}

/** Bytes in memory, and in a file. */
interface Share {
  readonly memory: number;
  readonly disk: number;
}

interface Waiter {
  readonly capacity: number;
  readonly admit: (reservation: Reservation) => void;
  readonly refuse: (reason: unknown) => void;
}

/**
 * Everything a spool may come to need is set aside before its first byte, beside the block that one with a file is about to write, so half-written spools never wait for each other. Within each of memory
 * and disk, nobody overtakes: a small spool may pass a large one that waits for disk, as long as it takes nothing that one needs.
 */
export class SpoolBudget {
  readonly #options: BudgetOptions;
  readonly #line = new Set<Waiter>();
  #memory = 0;
  #disk = 0;
  #closed = false;

  constructor(options: BudgetOptions) {
    this.#options = options;
  }

  usage(): { memory: number; disk: number; waiting: number } {
    return { memory: this.#memory, disk: this.#disk, waiting: this.#line.size };
  }

  /**
   * Room for `capacity` bytes, in turn.
   * @throws GatewayError `no_room` when it could never fit, `shutting_down` after `close`; the signal's reason.
   */
  async reserve(capacity: number, signal: AbortSignal): Promise<Reservation> {
    if (this.#closed) throw new GatewayError("shutting_down");
    signal.throwIfAborted();
    if (!this.#couldFit(capacity)) {
      throw new GatewayError("no_room", { detail: `${capacity} bytes fit in neither scan.spool.memory nor scan.spool.disk` });
    }
    return this.tryReserve(capacity) ?? this.#wait(capacity, signal);
  }

  /** The same, if it can be had now, and without anybody waiting longer for it; else undefined. */
  tryReserve(capacity: number): Reservation | undefined {
    if (this.#closed || this.#line.size > 0) return undefined;
    const share = this.#shareOf(capacity, this.#freeMemory, this.#freeDisk);
    return share && this.#setAside(share);
  }

  /** Refuses all who wait, and all who come. */
  close(): void {
    this.#closed = true;
    for (const waiter of this.#line) waiter.refuse(new GatewayError("shutting_down"));
  }

  #wait(capacity: number, signal: AbortSignal): Promise<Reservation> {
    const { promise, resolve, reject } = Promise.withResolvers<Reservation>();
    const leave = () => {
      signal.removeEventListener("abort", abort);
      this.#line.delete(waiter);
    };
    const waiter: Waiter = {
      capacity,
      admit: (reservation) => {
        leave();
        resolve(reservation);
      },
      refuse: (reason) => {
        leave();
        reject(reason);
      },
    };
    const abort = () => {
      waiter.refuse(signal.reason);
      this.#serve();
    };
    this.#line.add(waiter);
    signal.addEventListener("abort", abort, { once: true });
    this.#serve();
    return promise;
  }

  #couldFit(capacity: number): boolean {
    return capacity <= this.#options.disk || (capacity <= this.#options.inMemory && capacity <= this.#options.memory);
  }

  /** Admits whoever can be, in order. Once one has to wait for memory or disk, those behind it get none of that. */
  #serve(): void {
    let freeMemory = this.#freeMemory;
    let freeDisk = this.#freeDisk;
    for (const waiter of this.#line) {
      if (freeMemory < 0 && freeDisk < 0) return;
      const share = this.#shareOf(waiter.capacity, freeMemory, freeDisk);
      if (share !== undefined) {
        freeMemory -= share.memory;
        freeDisk -= share.disk;
        waiter.admit(this.#setAside(share));
      } else {
        freeDisk = -1;
        if (waiter.capacity <= this.#options.inMemory) freeMemory = -1;
      }
    }
  }

  get #freeMemory(): number {
    return this.#options.memory - this.#memory;
  }

  get #freeDisk(): number {
    return this.#options.disk - this.#disk;
  }

  /** What a spool of this capacity takes of what is free; undefined when it has to wait. */
  #shareOf(capacity: number, freeMemory: number, freeDisk: number): Share | undefined {
    const { inMemory, memory } = this.#options;
    if (capacity <= (capacity <= inMemory ? freeMemory : freeMemory - memory / 2)) return { memory: capacity, disk: 0 };
    if (capacity > freeDisk) return undefined;
    return { memory: capacity > inMemory && inMemory <= freeMemory ? inMemory : 0, disk: capacity };
  }

  #setAside({ memory, disk }: Share): Reservation {
    this.#memory += memory;
    this.#disk += disk;
    return new Reservation(memory, disk, (freedMemory, freedDisk) => {
      this.#memory -= freedMemory;
      this.#disk -= freedDisk;
      if (this.#line.size > 0) this.#serve();
    });
  }
}
