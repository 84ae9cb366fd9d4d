import { GatewayError } from "../errors.ts";
import { PooledSpool, type Spool } from "./spool.ts";
import { type BudgetOptions, type Reservation, SpoolBudget } from "./spool-budget.ts";
import { SpoolFile } from "./spool-file.ts";

export interface SpoolPoolOptions extends BudgetOptions {
  /** Where files are made, which are unlinked at once. */
  readonly directory: string;
}

/** Makes spools within a budget of memory and disk that all of them share. */
export class SpoolPool implements AsyncDisposable {
  readonly #budget: SpoolBudget;
  readonly #options: SpoolPoolOptions;
  readonly #open = new Set<PooledSpool>();
  #closed = false;

  constructor(options: SpoolPoolOptions) {
    this.#options = options;
    this.#budget = new SpoolBudget(options);
  }

  /**
   * Room for `capacity` bytes, waiting in line until there is. A capacity that may not be used up (the length is unknown) takes no disk
   * until more than `inMemory` bytes came.
   * @throws GatewayError `no_room` when it can never fit or the disk fails, `shutting_down`; the signal's reason.
   */
  async create(capacity: number, signal: AbortSignal): Promise<Spool> {
    const reservation = await this.#budget.reserve(capacity, signal);
    try {
      const file = this.#beginsInMemory(capacity, reservation) ? undefined : await SpoolFile.open(this.#options.directory);
      const spool = this.#made(capacity, reservation, file);
      if (!this.#closed && !signal.aborted) return spool;
      await spool.close();
      throw this.#closed ? new GatewayError("shutting_down") : signal.reason;
    } catch (error) {
      reservation.shrinkTo(0, 0);
      throw error;
    }
  }

  /** The same, where nothing has to be waited for: nobody is in line, and there is the memory with which it begins; else undefined. */
  tryCreate(capacity: number): Spool | undefined {
    const reservation = this.#budget.tryReserve(capacity);
    if (reservation === undefined) return undefined;
    if (this.#beginsInMemory(capacity, reservation)) return this.#made(capacity, reservation, undefined);
    reservation.shrinkTo(0, 0);
    return undefined;
  }

  /** Bytes that are set aside in memory and on disk, and how many wait for room. */
  usage(): { memory: number; disk: number; waiting: number } {
    return this.#budget.usage();
  }

  /** Refuses who waits and who comes, and closes every spool. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#budget.close();
    await Promise.all([...this.#open].map((spool) => spool.close()));
  }

  /** Without memory it lives on disk from the start: a disk that fails is better known then than at the first byte. */
  #beginsInMemory(capacity: number, { memory }: Reservation): boolean {
    return memory >= Math.min(capacity, this.#options.inMemory);
  }

  #made(capacity: number, reservation: Reservation, file: SpoolFile | undefined): PooledSpool {
    const spool = new PooledSpool(capacity, reservation, file, this.#options.directory, (closed) => this.#open.delete(closed));
    this.#open.add(spool);
    return spool;
  }
}
