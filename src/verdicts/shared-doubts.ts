/** What processes tell each other of their scanners: when one may not have worked, and that there is news of it. */
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { z } from "zod";
import { KeyedDigest } from "./keyed-digest.ts";
import type { Records } from "./records.ts";

/** Verdicts of this outcome from the one moment to the other may be wrong (ms since the epoch). */
export interface SharedDoubt {
  readonly of: "clean" | "infected";
  readonly from: number;
  readonly until: number;
}

export interface DoubtRecordsOptions {
  readonly records: Records;
  /** Names are keyed with it: a service's address is nobody's business who reads the records. */
  readonly secret: Buffer;
  /** Milliseconds that verdicts are kept, at most. */
  readonly lifetime: number;
  /** Two processes that bear one name see the same services; this host's by default. */
  readonly machine?: string;
  /** Tells this process apart from others that run on this machine for the same gateway. One that takes its place bears its name. */
  readonly worker?: string;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

/** Windows of one outcome that are written, or believed. */
const MAX_WINDOWS = 32;
/** Milliseconds that records outlast the last verdict they concern, for clocks differ. */
const MARGIN = 60 * 60_000;

const windows = z.array(z.tuple([z.int().min(0), z.int().min(0)])).max(MAX_WINDOWS);
const doubtsSchema = z.strictObject({ clean: windows, infected: windows });
const passSchema = z.strictObject({ at: z.int().min(0) });

/** Sealed as verdicts are; each process has a field of its own, so that none writes over another's. Nothing here rejects. */
export class DoubtRecords {
  readonly lifetime: number;
  readonly #records: Records;
  readonly #digest: KeyedDigest;
  readonly #machine: string;
  readonly #field: string;
  readonly #now: () => number;
  /** Known again in its own hints. */
  readonly #id = randomUUID();

  constructor({ records, secret, lifetime, machine = hostname(), worker, now = Date.now }: DoubtRecordsOptions) {
    this.lifetime = lifetime;
    this.#records = records;
    this.#digest = new KeyedDigest(secret);
    this.#machine = machine;
    this.#field = this.#name("doubts of", ...(worker === undefined ? [machine] : [machine, worker]));
    this.#now = now;
  }

  /** Of all machines; undefined: that can't be asked. */
  async load(scanner: string): Promise<readonly SharedDoubt[] | undefined> {
    const entries = await this.#records.hashEntries(this.#hash(scanner), (content) => doubtsSchema.safeParse(content).data);
    return (
      entries && [...entries.values()].flatMap(({ clean, infected }) => [...doubtsOf("clean", clean), ...doubtsOf("infected", infected)])
    );
  }

  /** In place of what this process, or the one whose place it took, put there before. Returns whether it is kept. */
  async keep(scanner: string, doubts: readonly SharedDoubt[]): Promise<boolean> {
    const record = { clean: windowsOf("clean", doubts), infected: windowsOf("infected", doubts) };
    return this.#records.hashSet(this.#hash(scanner), this.#field, record, this.#now() + this.#kept);
  }

  async lastPass(replica: string): Promise<number | "unknown" | "away"> {
    const found = await this.#records.look(this.#pass(replica), (content) => passSchema.safeParse(content).data);
    if (typeof found === "object") return found.record.at;
    return found === "away" ? "away" : "unknown";
  }

  async passed(replica: string, at: number): Promise<void> {
    await this.#records.set(this.#pass(replica), { at: Math.max(0, Math.floor(at)) }, this.#kept);
  }

  /** A hint to all other instances. */
  async tell(scanner: string): Promise<void> {
    await this.#records.publish(this.#hash(scanner), this.#id);
  }

  /** `told` may be anybody's doing; `listening`: from now on, and what was told before may have been missed. */
  listen(scanner: string, { told, listening }: { readonly told: () => void; readonly listening: () => void }): Disposable {
    return this.#records.subscribe(
      this.#hash(scanner),
      (message) => {
        if (message !== this.#id) told();
      },
      listening,
    );
  }

  get #kept(): number {
    return this.lifetime + MARGIN;
  }

  /** Of the hash, and of the channel. */
  #hash(scanner: string): string {
    return `doubts:${this.#name("doubts", scanner)}`;
  }

  #pass(replica: string): string {
    return `pass:${this.#name("pass", replica, this.#machine)}`;
  }

  #name(purpose: string, ...parts: readonly string[]): string {
    return this.#digest.name(purpose, parts);
  }
}

function doubtsOf(of: SharedDoubt["of"], found: z.infer<typeof windows>): SharedDoubt[] {
  return found.map(([from, until]) => ({ of, from, until }));
}

/** Whole milliseconds, outwards. */
function windowsOf(of: SharedDoubt["of"], doubts: readonly SharedDoubt[]): [number, number][] {
  return doubts.filter((doubt) => doubt.of === of).map(({ from, until }) => [Math.max(0, Math.floor(from)), Math.max(0, Math.ceil(until))]);
}
