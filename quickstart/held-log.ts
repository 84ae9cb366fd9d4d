/** Log lines that would scroll the table away: kept in case something goes wrong, and dropped once nothing has. */
export class HeldLog {
  readonly #out: NodeJS.WritableStream;
  #held: string[] | undefined = [];

  constructor(out: NodeJS.WritableStream) {
    this.#out = out;
  }

  write(line: string): void {
    if (this.#held === undefined) this.#out.write(line);
    else this.#held.push(line);
  }

  /** Writes what was held; from now on lines pass at once. */
  show(): void {
    for (const line of this.#held ?? []) this.#out.write(line);
    this.#held = undefined;
  }

  /** From now on lines pass at once; what was held is dropped. */
  follow(): void {
    this.#held = undefined;
  }
}
