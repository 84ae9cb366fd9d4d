/** Keyed digests, a million of them in 32 MiB, put in one by one. */

/** Bytes of each that are kept: enough that no two meet, for whoever has no key can't look for any. */
const WIDTH = 16;

/** An open-addressed hash table that is half full at most. Digests are keyed, so nobody can choose where they fall. */
export class DigestSet {
  readonly #slots: Buffer;
  readonly #mask: number;
  #size = 0;

  /** @param most digests that will be put in */
  constructor(most: number) {
    const places = 2 ** Math.ceil(Math.log2(Math.max(1, most) * 2));
    this.#slots = Buffer.alloc(places * WIDTH);
    this.#mask = places - 1;
  }

  /** @param digest in base64url */
  add(digest: string): void {
    const bytes = Buffer.from(digest, "base64url");
    const at = this.#find(bytes);
    if (this.#isFree(at)) this.#size += 1;
    bytes.copy(this.#slots, at, 0, WIDTH);
  }

  /** How many there are, each counted once. */
  get size(): number {
    return this.#size;
  }

  has(digest: string): boolean {
    const at = this.#find(Buffer.from(digest, "base64url"));
    return !this.#isFree(at);
  }

  /** Where it is, or would be. */
  #find(digest: Buffer): number {
    for (let place = digest.readUInt32LE(0) & this.#mask; ; place = (place + 1) & this.#mask) {
      const at = place * WIDTH;
      if (this.#isFree(at) || digest.compare(this.#slots, at, at + WIDTH, 0, WIDTH) === 0) return at;
    }
  }

  /** No digest has eight bytes of nought, short of a chance of 2^-64. */
  #isFree(at: number): boolean {
    return this.#slots.readUInt32LE(at) === 0 && this.#slots.readUInt32LE(at + 4) === 0;
  }
}
