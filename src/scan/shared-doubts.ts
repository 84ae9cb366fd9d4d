/** What instances tell each other of one scanner: when it may not have worked, and that there is news, so that all of them look at it soon. */
import { setTimeout as sleep } from "node:timers/promises";
import { Deadline, waitFor } from "./deadline.ts";
import { type Doubt, Doubts, includes } from "./doubts.ts";
import { Pace } from "./pace.ts";
import type { KeptOutcome, Stamp } from "./scanner.ts";

/**
 * Where they tell it. Keys name a scanner, or a replica of one, as all instances do. Nothing here rejects or takes long, and nothing that
 * is missing proves anything: whoever can write there can remove what is there, or put back what was.
 */
export interface SharedDoubts {
  /** Milliseconds that verdicts are kept, at most: a doubt that ended before that concerns none. */
  readonly lifetime: number;
  /** What all instances put there; undefined: it can't be asked. */
  load(scanner: string): Promise<readonly Doubt[] | undefined>;
  /** Puts there what this instance knows, in place of what it put there before. Returns whether it is there now. */
  keep(scanner: string, doubts: readonly Doubt[]): Promise<boolean>;
  /** When this replica last passed its canaries, as seen from this machine (ms since the epoch); `unknown`: nobody knows; `away`: it can't be asked. */
  lastPass(replica: string): Promise<number | "unknown" | "away">;
  passed(replica: string, at: number): Promise<void>;
  /** Tells all other instances that there is news. */
  tell(scanner: string): Promise<void>;
  /** `told` may be anybody's doing. `listening`: from now on; what was told before may have been missed. */
  listen(scanner: string, listener: { readonly told: () => void; readonly listening: () => void }): Disposable;
}

export interface DoubtLog {
  /** Other instances found out that the scanner may not have worked in these times: what it said then is asked again. */
  doubtsLearned(scanner: string, doubts: readonly Doubt[]): void;
}

export interface DoubtExchangeOptions {
  readonly shared: SharedDoubts;
  /** Names the scanner. */
  readonly key: string;
  /** Their addresses. */
  readonly replicas: readonly string[];
  /** Others have seen something new of the scanner: its canaries should go out soon. */
  readonly news: () => void;
  /** Others have found out that the scanner may not have worked at times. */
  readonly learned: (doubts: readonly Doubt[]) => void;
  /** Milliseconds since the epoch, as in stamps. */
  readonly clock: () => number;
}

/** Milliseconds that verdicts wait at the start for what others know. */
const START_LIMIT = 2_000;
const START_STEP = 50;
/** Milliseconds between two looks without a hint. */
const POLL = 10_000;
/** Milliseconds between two looks, and between two runs of canaries, however many hints come in, or go out. */
const LOOK_PACE = 1_000;
const NEWS_PACE = 5_000;
const TELL_PACE = 1_000;
/** Milliseconds by which clocks of two machines may differ: doubts reach so much further in both directions. */
const CLOCK_SKEW = 10_000;

/**
 * Invariants: a doubt that this instance has once known stays, whatever is removed or put back elsewhere; until the others' doubts were read,
 * or have kept it waiting for too long, everything is doubted; what is known here and not there is put there, whenever it is found missing.
 */
export class DoubtExchange implements Disposable {
  readonly #options: DoubtExchangeOptions;
  readonly #known = new Doubts();
  /** Of each replica, those of which nobody here knows when they began; kept apart until that can be asked. */
  readonly #open = new Map<string, Doubts>();
  /** What to take for that, once it was asked. */
  #since: ReadonlyMap<string, number> | undefined;
  /** Not there yet. */
  readonly #passes = new Map<string, number>();
  readonly #born: number;
  readonly #looks = new Pace(LOOK_PACE, () => void this.#look());
  readonly #news: Pace;
  readonly #tells: Pace;
  readonly #stop = new AbortController();
  #consulted = false;
  #listened = false;
  #loaded = false;
  #looking: Promise<void> | undefined;
  #again = false;
  #subscription: Disposable | undefined;
  #poll: NodeJS.Timeout | undefined;

  constructor(options: DoubtExchangeOptions) {
    this.#options = options;
    this.#born = options.clock();
    this.#news = new Pace(NEWS_PACE, options.news);
    this.#tells = new Pace(TELL_PACE, () => void options.shared.tell(options.key));
  }

  /** Resolves when it is known what others know, or when that has taken too long; never rejects. */
  async start(): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#subscription = this.#options.shared.listen(this.#options.key, {
      told: () => {
        this.#looks.ask();
        this.#news.ask();
      },
      listening: () => {
        this.#looks.ask();
        if (this.#listened) this.#news.ask();
        this.#listened = true;
      },
    });
    this.#poll = setInterval(() => void this.#look(), POLL).unref();
    using time = new Deadline(START_LIMIT, () => new Error("what others know can't be had in time"), this.#stop.signal);
    try {
      while (!this.#loaded) {
        await waitFor(this.#look(), time.signal);
        if (!this.#loaded) await sleep(START_STEP, undefined, { signal: time.signal });
      }
    } catch (error) {
      if (!time.signal.aborted) throw error;
    }
    this.#consulted = true;
  }

  doubts(stamp: Stamp, outcome: KeptOutcome): boolean {
    return !this.#consulted || this.#known.holds(stamp, outcome);
  }

  /** This instance found it out. A doubt without a beginning is shared from the replica's last pass on this machine, else from the start. */
  add({ of, from, until }: Doubt, replica: string): void {
    if (Number.isFinite(from)) this.#known.add(widened({ of, from, until }));
    else this.#openOf(replica).add({ of, from, until });
    void this.#look();
  }

  /** The replica has passed its canaries, which went out at this moment. */
  passed(replica: string, at: number): void {
    this.#passes.set(replica, at);
    void this.#look();
  }

  /** This instance has seen something of the scanner that the others will want to see. */
  tell(): void {
    this.#tells.ask();
  }

  /** One after the other; joined by whoever asks meanwhile, and then done once more for them. */
  async #look(): Promise<void> {
    this.#again = true;
    this.#looking ??= (async () => {
      while (this.#again && !this.#stop.signal.aborted) {
        this.#again = false;
        await this.#exchange();
      }
      this.#looking = undefined;
    })();
    await this.#looking;
  }

  async #exchange(): Promise<void> {
    const { shared, key, clock } = this.#options;
    const found = await shared.load(key);
    if (found === undefined) return;
    const news = found.filter((doubt) => this.#known.add(doubt));
    if (news.length > 0) this.#options.learned(news);
    // What was there before this instance began is no news of now.
    if (news.length > 0 && this.#loaded) this.#news.ask();
    this.#since ??= await this.#earlierPasses();
    if (this.#since === undefined) return;
    this.#settle(this.#since);
    const here = [...this.#known].filter(({ until }) => until + shared.lifetime > clock());
    const missing = here.some((doubt) => !found.some((other) => includes(other, doubt)));
    if (missing && (await shared.keep(key, here))) this.tell();
    this.#loaded = true;
    for (const [replica, at] of this.#passes) {
      this.#passes.delete(replica);
      await shared.passed(this.#keyOf(replica), at);
    }
  }

  /** Now it is known when they began. */
  #settle(since: ReadonlyMap<string, number>): void {
    for (const [replica, open] of this.#open) {
      const from = since.get(replica) ?? this.#born;
      for (const { of, until } of open) this.#known.add(widened({ of, from, until }));
    }
    this.#open.clear();
  }

  /**
   * Undefined while one of them can't be asked for: what is taken for it now would stay. Invariant: asked before this instance's own passes take the
   * place of an earlier process's.
   */
  async #earlierPasses(): Promise<ReadonlyMap<string, number> | undefined> {
    const { shared, replicas } = this.#options;
    const passes = new Map<string, number>();
    for (const replica of replicas) {
      const at = await shared.lastPass(this.#keyOf(replica));
      if (at === "away") return undefined;
      passes.set(replica, at === "unknown" ? this.#born : Math.min(at, this.#born));
    }
    return passes;
  }

  #openOf(replica: string): Doubts {
    const open = this.#open.get(replica) ?? new Doubts();
    this.#open.set(replica, open);
    return open;
  }

  #keyOf(replica: string): string {
    return JSON.stringify([this.#options.key, replica]);
  }

  [Symbol.dispose](): void {
    this.#stop.abort();
    clearInterval(this.#poll);
    this.#subscription?.[Symbol.dispose]();
    this.#looks[Symbol.dispose]();
    this.#news[Symbol.dispose]();
    this.#tells[Symbol.dispose]();
  }
}

function widened({ of, from, until }: Doubt): Doubt {
  return { of, from: Math.max(0, from - CLOCK_SKEW), until: until + CLOCK_SKEW };
}
