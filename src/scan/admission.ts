/** Who may come in, and who waits: a share for each client, slots for the work, and a bound on everything. */
import { LRUCache } from "lru-cache";
import { GatewayError } from "../errors.ts";
import { Held } from "./held.ts";
import { Line } from "./line.ts";

export interface AdmissionOptions {
  /** Media that are downloaded and scanned at once; as many again of each other kind: known media, uploads, and questions to the homeserver. */
  readonly maxConcurrent: number;
  /** Requests that wait for such a slot, of each kind; of known media, eight times as many. */
  readonly maxQueued: number;
  /** Requests of one client, of all kinds together, scans that go on after it hung up included. */
  readonly maxPerClient: number;
}

/** A client's place; given back when the last who holds it lets go. */
export class Entry implements Disposable {
  readonly #leave: () => void;
  #holders = 1;

  constructor(leave: () => void) {
    this.#leave = leave;
  }

  /** Held once more: by a scan that may outlive the request. */
  share(): Disposable {
    this.#holders += 1;
    return new Held(this.#release);
  }

  readonly #release = (): void => {
    this.#holders -= 1;
    if (this.#holders === 0) this.#leave();
  };

  [Symbol.dispose](): void {
    this.#release();
  }
}

/** Who asks, for fairness only. */
export interface Client {
  readonly address: string;
  /** A keyed digest of the token; undefined without one. */
  readonly token: string | undefined;
}

/** An address may stand for many users, behind a proxy that is not trusted or a company's gateway: it has so many shares. */
const SHARES_OF_AN_ADDRESS = 4;
/** How many tokens are remembered that a homeserver has said yes to. */
const PROVEN_TOKENS = 10_000;
/** For each place in the queue, how many known media may wait: they were promised an answer by somebody else's scan, and cost a download only. */
const KNOWN_PER_QUEUED = 8;

export class Admission {
  /** Media not known yet: download and scan. A slot ends with the verdict, not with the last byte to a slow reader. */
  readonly scans: Line;
  /** Known media on its way from the homeserver. Apart, so that slow scans never hold it up. */
  readonly transfers: Line;
  /** Media that clients send, from its first byte to the homeserver's answer. Apart, because clients may be slow. */
  readonly uploads: Line;
  /** Questions that are passed on to the homeserver. Apart, so that slow answers to them hold up no media. */
  readonly forwards: Line;
  readonly #maxPerClient: number;
  readonly #maxInside: number;
  readonly #inside = new Map<string, number>();
  /** Only a token that a homeserver knows is a client of its own: anybody can make up others. */
  readonly #proven = new LRUCache<string, true>({ max: PROVEN_TOKENS });
  #total = 0;

  constructor({ maxConcurrent, maxQueued, maxPerClient }: AdmissionOptions) {
    this.scans = new Line(maxConcurrent, maxQueued);
    this.transfers = new Line(maxConcurrent, maxQueued * KNOWN_PER_QUEUED);
    this.uploads = new Line(maxConcurrent, maxQueued);
    this.forwards = new Line(maxConcurrent, maxQueued);
    this.#maxPerClient = maxPerClient;
    this.#maxInside = 4 * maxConcurrent + (3 + KNOWN_PER_QUEUED) * maxQueued;
  }

  /** Requests at work, and those that wait for their turn. */
  get requests(): { active: number; queued: number } {
    const lines = [this.scans, this.transfers, this.uploads, this.forwards];
    return { active: lines.reduce((sum, { taken }) => sum + taken, 0), queued: lines.reduce((sum, { waiting }) => sum + waiting, 0) };
  }

  /** @throws GatewayError `rate_limited` when this client has its share already, or everybody together has. */
  enter({ address, token }: Client): Entry {
    const own = token !== undefined && this.#proven.has(token);
    if (this.#total >= this.#maxInside) throw new GatewayError("rate_limited", { detail: "too many requests at once" });
    const share = own
      ? this.#take(`token ${token}`, this.#maxPerClient)
      : this.#take(`address ${address}`, this.#maxPerClient * SHARES_OF_AN_ADDRESS);
    this.#total += 1;
    return new Entry(() => {
      this.#total -= 1;
      share[Symbol.dispose]();
    });
  }

  #take(key: string, most: number): Disposable {
    const inside = this.#inside.get(key) ?? 0;
    if (inside >= most) throw new GatewayError("rate_limited", { detail: "too many requests of one client at once" });
    this.#inside.set(key, inside + 1);
    return new Held(() => {
      const left = (this.#inside.get(key) ?? 1) - 1;
      if (left === 0) this.#inside.delete(key);
      else this.#inside.set(key, left);
    });
  }

  /** As `enter`, for one user, however many tokens. @throws GatewayError `rate_limited` when this user has a client's share already. */
  enterAs(user: string): Disposable {
    return this.#take(`user ${user}`, this.#maxPerClient);
  }

  /** A homeserver has said yes to this client's token. */
  proved({ token }: Client): void {
    if (token !== undefined) this.#proven.set(token, true);
  }
}
