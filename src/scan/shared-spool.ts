import type { Spool } from "../media/spool.ts";
import { AsyncHeld } from "./held.ts";

/** One spool for several holders, each until it has what it needs: closed when the last of them lets go. */
export class SharedSpool {
  readonly spool: Spool;
  #holders = 0;

  constructor(spool: Spool) {
    this.spool = spool;
  }

  /** Not to be called any more once everybody has let go. */
  hold(): AsyncDisposable {
    this.#holders += 1;
    return new AsyncHeld(this.#letGo);
  }

  readonly #letGo = async (): Promise<void> => {
    this.#holders -= 1;
    if (this.#holders === 0) await this.spool.close();
  };
}
