/** Work that anybody may ask for at any time, done no more often than its pace allows. */

export class Pace implements Disposable {
  readonly #interval: number;
  readonly #work: () => void;
  #timer: NodeJS.Timeout | undefined;
  #wanted = false;
  #disposed = false;

  /** @param interval milliseconds from one time to the next, at least */
  constructor(interval: number, work: () => void) {
    this.#interval = interval;
    this.#work = work;
  }

  /** It is done now, or as soon as its time has come: once, however often it was asked for meanwhile. */
  ask(): void {
    if (this.#disposed) return;
    this.#wanted = true;
    if (this.#timer === undefined) this.#turn();
  }

  #turn(): void {
    this.#timer = undefined;
    if (!this.#wanted) return;
    this.#wanted = false;
    this.#timer = setTimeout(() => this.#turn(), this.#interval).unref();
    this.#work();
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    clearTimeout(this.#timer);
  }
}
