/** How large a file the homeserver takes of whom, remembered for a while. */
import { LRUCache } from "lru-cache";
import type { MediaStore } from "./media-store.ts";
import type { Credentials } from "./source.ts";

/** Milliseconds for which an answer holds, and for which none does; and which one may take: a homeserver that is slow to say keeps no upload waiting. */
const LIFETIME = 5 * 60_000;
const SILENCE = 60_000;
const PATIENCE = 5_000;
const MAX_USERS = 10_000;

export class UploadLimits {
  readonly #store: Pick<MediaStore, "maxUploadSize">;
  /** By user: a homeserver may allow one more than another. */
  readonly #known = new LRUCache<string, Promise<number>>({ max: MAX_USERS, ttl: LIFETIME });

  constructor(store: Pick<MediaStore, "maxUploadSize">) {
    this.#store = store;
  }

  /** Bytes; `Infinity` where the homeserver does not say, and then has to refuse by itself. Never rejects. */
  of(user: string, credentials: Credentials): Promise<number> {
    const known = this.#known.get(user);
    if (known !== undefined) return known;
    const asked = this.#ask(user, credentials);
    this.#known.set(user, asked);
    return asked;
  }

  async #ask(user: string, credentials: Credentials): Promise<number> {
    const limit = await this.#store.maxUploadSize(credentials, AbortSignal.timeout(PATIENCE)).catch(() => undefined);
    if (limit !== undefined) return limit;
    this.#known.set(user, Promise.resolve(Infinity), { ttl: SILENCE });
    return Infinity;
  }
}
