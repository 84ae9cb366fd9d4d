import type { Spool } from "../media/spool.ts";

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
    let held = true;
    return {
      [Symbol.asyncDispose]: async () => {
        if (!held) return;
        held = false;
        this.#holders -= 1;
        if (this.#holders === 0) await this.spool.close();
      },
    };
  }
}
