/** What somebody holds until it is disposed of; disposing it again does nothing. */
export class Held implements Disposable {
  #letGo: (() => void) | undefined;

  /** @param letGo is called once, when it is given back. */
  constructor(letGo: () => void) {
    this.#letGo = letGo;
  }

  [Symbol.dispose](): void {
    const letGo = this.#letGo;
    this.#letGo = undefined;
    letGo?.();
  }
}

/** The same, where whoever disposes of it waits until it is given back. */
export class AsyncHeld implements AsyncDisposable {
  #letGo: (() => Promise<void>) | undefined;

  /** @param letGo as of `Held`. */
  constructor(letGo: () => Promise<void>) {
    this.#letGo = letGo;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const letGo = this.#letGo;
    this.#letGo = undefined;
    await letGo?.();
  }
}
