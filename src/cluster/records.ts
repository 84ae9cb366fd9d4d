/** What workers keep for each other, as one of them has it: everything is asked of the primary. */
import { Lease, type LeaseTable } from "../verdicts/lease.ts";
import type { Found, ParseRecord, Records, RecordsHealth, Standing } from "../verdicts/records.ts";
import type { Channel } from "./channel.ts";
import { type Hint, type KeptJson, LIMITS, type MarkedJson, type RecordQuestion } from "./messages.ts";

export interface WorkerRecordsOptions {
  readonly channel: Pick<Channel, "ask" | "tell">;
  readonly log: { warn(details: object, message: string): void; info(details: object, message: string): void };
}

/**
 * Milliseconds that one question may take, once: after that nothing is asked until the primary answers again. Longer than one to Redis, for where the
 * processors of this machine are busy the primary waits for them as well, and not to share work would make them busier.
 */
const LIMIT = 1000;
/** Milliseconds between two tries to find out whether a primary that did not answer does again. */
const PROBE_INTERVAL = 1000;
/** Of a record that does not expire; nothing that is said is longer. */
const NEVER = Number.MAX_SAFE_INTEGER;
/** Each time, somebody else was quicker. */
const MAX_TRIES = 5;

interface Subscription {
  readonly listener: (message: string) => void;
  readonly onReconnect: () => void;
}

function within(milliseconds: number): number {
  return Math.min(Math.max(0, milliseconds), NEVER);
}

/** As it is sent: what is too long to be kept is sent as a record whose life is over, for it replaces what is there all the same. */
function fit(record: unknown, ttl: number): { readonly json: string; readonly ttl: number } {
  const json = JSON.stringify(record);
  return json.length > LIMITS.record ? { json: "null", ttl: 0 } : { json, ttl: within(ttl) };
}

function foundIn<T>({ json, expiresAt }: KeptJson, parse: ParseRecord<T>): Found<T> | undefined {
  const record = parse(JSON.parse(json));
  return record === undefined ? undefined : { record, expiresAt };
}

/** No answer: the primary is busy, or stopped. */
type Unanswered = undefined;

export class WorkerRecords implements Records, Disposable {
  readonly #channel: WorkerRecordsOptions["channel"];
  readonly #log: WorkerRecordsOptions["log"];
  readonly #subscriptions = new Map<string, Set<Subscription>>();
  readonly #leases: LeaseTable = {
    take: async (name, token, ttl) => (await this.#ask({ do: "take", name, token: token.toString("base64url"), ttl })) !== false,
    extend: (name, token, ttl) => this.#ask({ do: "extend", name, token: token.toString("base64url"), ttl }),
    release: async (name, token) => (await this.#ask({ do: "release", name, token: token.toString("base64url") })) === true,
  };
  /** While it is set, nothing but a probe is asked. */
  #probe: NodeJS.Timeout | undefined;

  constructor({ channel, log }: WorkerRecordsOptions) {
    this.#channel = channel;
    this.#log = log;
  }

  async get<T>(name: string, parse: ParseRecord<T>): Promise<Found<T> | undefined> {
    const found = await this.look(name, parse);
    return typeof found === "object" ? found : undefined;
  }

  async look<T>(name: string, parse: ParseRecord<T>): Promise<Found<T> | "nothing" | "away"> {
    const kept = (await this.#ask({ do: "get", name })) as MarkedJson | null | Unanswered;
    if (kept === undefined) return "away";
    return (kept && foundIn(kept, parse)) ?? "nothing";
  }

  async set(name: string, record: unknown, ttl: number): Promise<void> {
    await this.#ask({ do: "set", name, ...fit(record, ttl) });
  }

  async setUnless<T>(name: string, record: unknown, ttl: number, { parse, stays }: Standing<T>): Promise<Found<T> | undefined> {
    const wanted = fit(record, ttl);
    let mark = 0;
    for (let tries = 0; tries < MAX_TRIES; tries += 1) {
      const there = (await this.#ask({ do: "replace", name, ...wanted, mark })) as true | MarkedJson | Unanswered;
      if (there === undefined || there === true) return undefined;
      const found = foundIn(there, parse);
      if (found !== undefined && stays(found)) return found;
      ({ mark } = there);
    }
    return undefined;
  }

  async delete(name: string): Promise<boolean> {
    return (await this.#ask({ do: "delete", name })) !== undefined;
  }

  lease(name: string, ttl: number): Promise<Lease | "taken"> {
    return Lease.take(this.#leases, name, ttl);
  }

  async hashEntries<T>(name: string, parse: ParseRecord<T>): Promise<ReadonlyMap<string, T> | undefined> {
    const found = (await this.#ask({ do: "entries", name })) as readonly (readonly [string, string])[] | Unanswered;
    if (found === undefined) return undefined;
    const entries = new Map<string, T>();
    for (const [field, json] of found) {
      const record = parse(JSON.parse(json));
      if (record !== undefined) entries.set(field, record);
    }
    return entries;
  }

  async hashSet(name: string, field: string, record: unknown, expiresAt = NEVER): Promise<boolean> {
    const json = JSON.stringify(record);
    if (json.length > LIMITS.entry || field.length > LIMITS.field) return false;
    return (await this.#ask({ do: "put", name, field, json, expiresAt: within(expiresAt) })) === true;
  }

  publish(channel: string, message: string): Promise<void> {
    const hint: Hint = { news: "hint", channel, message };
    if (message.length <= LIMITS.hint) this.#channel.tell(hint);
    return Promise.resolve();
  }

  subscribe(channel: string, listener: Subscription["listener"], onReconnect: () => void = () => undefined): Disposable {
    const subscription: Subscription = { listener, onReconnect };
    const others = this.#subscriptions.get(channel) ?? new Set();
    this.#subscriptions.set(channel, others.add(subscription));
    // Every hint comes to every worker: from now on, that is.
    queueMicrotask(() => void (others.has(subscription) && this.#tell(onReconnect)));
    return {
      [Symbol.dispose]: () => {
        if (others.delete(subscription) && others.size === 0) this.#subscriptions.delete(channel);
      },
    };
  }

  /** Somebody has published it. */
  hint({ channel, message }: Pick<Hint, "channel" | "message">): void {
    for (const { listener } of this.#subscriptions.get(channel) ?? []) this.#tell(() => listener(message));
  }

  /** Hints were lost on their way. */
  missed(): void {
    for (const { onReconnect } of [...this.#subscriptions.values()].flatMap((all) => [...all])) this.#tell(onReconnect);
  }

  health(): RecordsHealth {
    if (this.#probe === undefined) return { degraded: false, problems: [] };
    return { degraded: true, problems: ["the primary process does not answer; verdicts are kept in this process only"] };
  }

  [Symbol.dispose](): void {
    clearInterval(this.#probe);
    this.#subscriptions.clear();
  }

  async #ask(question: RecordQuestion): Promise<unknown> {
    if (this.#probe !== undefined) return undefined;
    const answer = await this.#channel.ask(question, LIMIT);
    if (answer === undefined) this.#unanswered();
    return answer;
  }

  #unanswered(): void {
    if (this.#probe !== undefined) return;
    this.#log.warn({}, "the primary process does not answer; verdicts are kept in this process only");
    const probe: RecordQuestion = { do: "ping" };
    this.#probe = setInterval(() => {
      void this.#channel.ask(probe, PROBE_INTERVAL).then((answer) => answer !== undefined && this.#answered());
    }, PROBE_INTERVAL).unref();
  }

  #answered(): void {
    if (this.#probe === undefined) return;
    clearInterval(this.#probe);
    this.#probe = undefined;
    this.#log.info({}, "the primary process answers again");
    this.missed();
  }

  #tell(listener: () => void): void {
    try {
      listener();
    } catch (error) {
      this.#log.warn({ why: error instanceof Error ? error.message : "unknown" }, "a hint could not be dealt with");
    }
  }
}
