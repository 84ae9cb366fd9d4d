/** The right to do something that only one process should do at a time: its holder's token stands under a key, for all to see, and expires. */
import { randomBytes } from "node:crypto";

/** Bytes. */
export const TOKEN_LENGTH = 16;

/** Where tokens stand. Nothing here rejects or takes long. */
export interface LeaseTable {
  /** @param ttl milliseconds. @returns false: somebody else's token stands there. True also where that can't be found out */
  take(key: string, token: Buffer, ttl: number): Promise<boolean>;
  /** Whoever else has taken it in the meantime keeps it; with nobody there it is taken again. */
  extend(key: string, token: Buffer, ttl: number): Promise<unknown>;
  /** @returns whether somebody has asked for it in vain, as far as is known */
  release(key: string, token: Buffer): Promise<boolean>;
}

/** Extended until it is disposed of. It spares work, it guards nothing: with the table away, two may hold it. */
export class Lease implements AsyncDisposable {
  readonly #table: LeaseTable;
  readonly #key: string;
  readonly #token: Buffer;
  readonly #timer: NodeJS.Timeout;

  private constructor(table: LeaseTable, key: string, token: Buffer, ttl: number) {
    this.#table = table;
    this.#key = key;
    this.#token = token;
    this.#timer = setInterval(() => void table.extend(key, token, ttl), Math.max(1, ttl / 3)).unref();
  }

  /** @param ttl milliseconds that it outlives a holder who died */
  static async take(table: LeaseTable, key: string, ttl: number): Promise<Lease | "taken"> {
    const token = randomBytes(TOKEN_LENGTH);
    return (await table.take(key, token, ttl)) ? new Lease(table, key, token, ttl) : "taken";
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
