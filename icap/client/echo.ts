import { createHash } from "node:crypto";

/** Tells whether what came back is what was sent, by length and SHA-256; keeps no byte of either. */
export class EchoComparison {
  readonly #sent = createHash("sha256");
  readonly #returned = createHash("sha256");
  #sentBytes = 0;
  #returnedBytes = 0;

  get returnedBytes(): number {
    return this.#returnedBytes;
  }

  sent(bytes: Uint8Array): void {
    this.#sentBytes += bytes.length;
    this.#sent.update(bytes);
  }

  returned(bytes: Uint8Array): void {
    this.#returnedBytes += bytes.length;
    // Past the sent length it can't be an echo any more.
    if (this.#returnedBytes <= this.#sentBytes) this.#returned.update(bytes);
  }

  /** To be asked once, when both bodies are complete. */
  identical(): boolean {
    return this.#returnedBytes === this.#sentBytes && this.#sent.digest().equals(this.#returned.digest());
  }
}
