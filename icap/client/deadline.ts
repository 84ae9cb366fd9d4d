import { IcapError } from "../errors.ts";

/** One timer that is set for the step an exchange is at; it fails the exchange, which ends the work. */
export class Deadline {
  readonly #fail: (error: IcapError) => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(fail: (error: IcapError) => void) {
    this.#fail = fail;
  }

  /** From now on, `ms` for `step` (what did not happen, for the message). Replaces what was set. */
  set(ms: number, step: string): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#fail(new IcapError("timeout", `${step} within ${ms} ms`));
    }, ms);
  }

  /** The step made progress: its time starts again. */
  extend(): void {
    this.#timer?.refresh();
  }

  clear(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
