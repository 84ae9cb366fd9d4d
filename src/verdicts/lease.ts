/** The right to do something that only one process should do at a time: its holder's token stands under a key, for all to see, and expires. */
import { randomBytes } from "node:crypto";

/** Bytes. */
export const TOKEN_LENGTH = 16;

/** `held`: somebody else's token stands there; `taken late`: one stood there when it was first asked for. */
export type Taking = "taken" | "taken late" | "held";

/** Where tokens stand. Nothing here rejects or takes long. */
export interface LeaseTable {
  /** @param ttl milliseconds. @returns `taken` also where it can't be found out */
  take(key: string, token: Buffer, ttl: number): Promise<Taking>;
  /** Whoever else has taken it in the meantime keeps it; with nobody there it is taken again. */
  extend(key: string, token: Buffer, ttl: number): Promise<unknown>;
  /** @returns whether somebody has asked for it in vain, as far as is known */
  release(key: string, token: Buffer): Promise<boolean>;
}

/** Extended until it is disposed of. It spares work, it guards nothing: with the table away, two may hold it. */
export class Lease implements AsyncDisposable {
  /** When it was asked for, somebody had it still: what was asked at the same time may be older. */
  readonly isLate: boolean;
  readonly #table: LeaseTable;
  readonly #key: string;
  readonly #token: Buffer;
  readonly #timer: NodeJS.Timeout;

  private constructor(table: LeaseTable, key: string, token: Buffer, ttl: number, isLate: boolean) {
    this.isLate = isLate;
    this.#table = table;
    this.#key = key;
    this.#token = token;
    this.#timer = setInterval(() => void table.extend(key, token, ttl), Math.max(1, ttl / 3)).unref();
  }

  /** @param ttl milliseconds that it outlives a holder who died */
  static async take(table: LeaseTable, key: string, ttl: number): Promise<Lease | "taken"> {
    const token = randomBytes(TOKEN_LENGTH);
    const taking = await table.take(key, token, ttl);
    return taking === "held" ? "taken" : new Lease(table, key, token, ttl, taking === "taken late");
  }

  /** Lets go of it. @returns whether somebody has asked for it in vain, as far as is known */
  release(): Promise<boolean> {
    clearInterval(this.#timer);
    return this.#table.release(this.#key, this.#token);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }
}
