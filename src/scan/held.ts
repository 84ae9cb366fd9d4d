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
