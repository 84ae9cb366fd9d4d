/** Clean media in memory, as it came from the homeserver, so that it need not be asked for bytes that were there a moment ago. */
import type { FetchedMedia, Mxc } from "../media/source.ts";
import type { SourceRecord } from "../verdicts/store.ts";
import { Held } from "./held.ts";

export interface MediaMemoryOptions {
  /** Bytes of all media together, those included that slow readers still hold; 0: none is held. */
  readonly bytes: number;
  /** Bytes of the smallest media that is held; 0 by default. */
  readonly smallest?: number;
  /** Bytes of the largest. */
  readonly largest: number;
}

type Headers = Pick<FetchedMedia, "contentType" | "contentDisposition">;

/** Whoever gets it must dispose of it once its bytes are not needed any more. */
export interface HeldMedia extends Headers, Disposable {
  readonly bytes: Buffer;
}

interface Entry extends Headers {
  readonly bytes: Buffer;
  /** Of the record that its bytes were checked against. */
  readonly pieces: Buffer;
  whole: boolean;
  /** Who write it or read it just now: it can't be given up. */
  users: number;
}

/** Headers, key and bookkeeping of one media, roughly. */
const OVERHEAD = 1024;

/**
 * Invariant: room is taken before the first byte is held, and given back only when nobody holds the bytes any more, so there is never more in
 * memory than there may be.
 */
export class MediaMemory {
  readonly #bytes: number;
  readonly #smallest: number;
  readonly #largest: number;
  /** The one used longest ago first. */
  readonly #entries = new Map<string, Entry>();
  #taken = 0;

  constructor({ bytes, smallest = 0, largest }: MediaMemoryOptions) {
    this.#bytes = bytes;
    this.#smallest = smallest;
    this.#largest = Math.min(largest, bytes - OVERHEAD);
  }

  /** Bytes that are taken. */
  get taken(): number {
    return this.#taken;
  }

  /**
   * What is held of this source at this place, if it is what the record says of it. The place counts, for it is what the homeserver said yes to: who knows
   * the hash of encrypted media may name any.
   */
  get(source: string, mxc: Mxc, record: SourceRecord): HeldMedia | undefined {
    const key = keyOf(source, mxc);
    const entry = this.#entries.get(key);
    if (entry?.whole !== true || entry.bytes.length !== record.size || !entry.pieces.equals(record.pieces)) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    entry.users += 1;
    const { bytes, contentType, contentDisposition } = entry;
    const held = new Held(() => (entry.users -= 1));
    return { bytes, contentType, contentDisposition, [Symbol.dispose]: () => held[Symbol.dispose]() };
  }

  /**
   * The same bytes on their way; once they have passed to the end, they are held, if there is room.
   * @param body yields what the record says, or throws
   */
  keep(source: string, mxc: Mxc, record: SourceRecord, headers: Headers, body: AsyncIterable<Buffer>): AsyncIterable<Buffer> {
    return record.size < this.#smallest || record.size > this.#largest ? body : this.#keeping(keyOf(source, mxc), record, headers, body);
  }

  async *#keeping(key: string, record: SourceRecord, headers: Headers, body: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    const entry = this.#begin(key, record, headers);
    let filled = 0;
    try {
      for await (const chunk of body) {
        if (entry !== undefined) filled += chunk.copy(entry.bytes, filled);
        yield chunk;
      }
      if (entry !== undefined) entry.whole = filled === record.size;
    } finally {
      if (entry !== undefined) {
        entry.users -= 1;
        if (!entry.whole) this.#drop(key, entry);
      }
    }
  }

  #begin(key: string, { size, pieces }: SourceRecord, { contentType, contentDisposition }: Headers): Entry | undefined {
    const known = this.#entries.get(key);
    if (known !== undefined) {
      if (known.users > 0 || known.pieces.equals(pieces)) return undefined;
      this.#drop(key, known);
    }
    if (!this.#makeRoom(size + OVERHEAD)) return undefined;
    const entry: Entry = { contentType, contentDisposition, bytes: Buffer.allocUnsafeSlow(size), pieces, whole: false, users: 1 };
    this.#entries.set(key, entry);
    this.#taken += size + OVERHEAD;
    return entry;
  }

  #makeRoom(wanted: number): boolean {
    const inUse = this.#entries.values().reduce((sum, { users, bytes }) => (users > 0 ? sum + bytes.length + OVERHEAD : sum), 0);
    // What is in use stays: then nothing else goes for it in vain.
    if (inUse + wanted > this.#bytes) return false;
    for (const [key, entry] of this.#entries) {
      if (this.#taken + wanted <= this.#bytes) break;
      if (entry.users === 0) this.#drop(key, entry);
    }
    return this.#taken + wanted <= this.#bytes;
  }

  #drop(key: string, entry: Entry): void {
    this.#entries.delete(key);
    this.#taken -= entry.bytes.length + OVERHEAD;
  }
}

function keyOf(source: string, { serverName, mediaId }: Mxc): string {
  return `${source} ${serverName}/${mediaId}`;
}
