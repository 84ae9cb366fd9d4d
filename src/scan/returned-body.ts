/** Where what comes back from one scan goes, while nobody knows yet whether it is a replacement. */
import { GatewayError } from "../errors.ts";
import type { Replacement } from "./scanner.ts";

/**
 * Opens a place when the first bytes come, so that scans which return nothing take no room. Whatever can't be kept is given up, and only told
 * if it turns out to have been wanted: to the verdict on the media it makes no difference. Disposing it disposes of what was not taken.
 */
export class ReturnedBody implements AsyncDisposable {
  readonly #open: () => Promise<Replacement>;
  #place: Replacement | undefined;
  #failure: { readonly error: unknown } | undefined;
  #closed = false;
  /** What is being done with the place; it is disposed of only after that. */
  #busy: Promise<void> = Promise.resolve();

  constructor(open: () => Promise<Replacement>) {
    this.#open = open;
  }

  /** Never rejects. */
  write(bytes: Uint8Array): Promise<void> {
    this.#busy = this.#busy.then(() => this.#write(bytes));
    return this.#busy;
  }

  /**
   * All has come, and it is a replacement: whose it is now. Undefined when it is larger than media may be.
   * @throws whatever kept it from being written.
   */
  async take(): Promise<Replacement | undefined> {
    await this.#busy;
    if (this.#failure !== undefined) {
      const { error } = this.#failure;
      if (error instanceof GatewayError && error.code === "too_large") return undefined;
      throw error;
    }
    const place = this.#place;
    this.#place = undefined;
    place?.end();
    return place;
  }

  async #write(bytes: Uint8Array): Promise<void> {
    if (this.#failure !== undefined || this.#closed) return;
    try {
      this.#place ??= await this.#open();
      await this.#place.write(bytes);
    } catch (error) {
      this.#failure = { error };
      await this.#giveUp();
    }
  }

  async #giveUp(): Promise<void> {
    const place = this.#place;
    this.#place = undefined;
    await place?.[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.#busy;
    await this.#giveUp();
  }
}
