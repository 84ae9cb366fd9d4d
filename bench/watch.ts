/** What processes take while something goes on. */
import { setTimeout as sleep } from "node:timers/promises";
import { usageOf } from "./process-tree.ts";

export interface Watched {
  /** Milliseconds of CPU time. */
  readonly cpu: number;
  /** Bytes that all of them held at the beginning, and at most. */
  readonly idle: number;
  readonly peak: number;
}

/** Milliseconds between two looks at their memory. */
const INTERVAL = 100;

export class Watch implements Disposable {
  readonly #pids: readonly number[];
  readonly #stop = new AbortController();
  #idle = 0;
  #peak = 0;
  #cpu = 0;

  private constructor(pids: readonly number[]) {
    this.#pids = pids;
    void this.#look();
  }

  static async start(pids: readonly number[]): Promise<Watch> {
    const watch = new Watch(pids);
    await watch.restart();
    return watch;
  }

  /** CPU time counts from now on. */
  async restart(): Promise<void> {
    const { cpu, rss } = await this.#usage();
    this.#cpu = cpu;
    if (this.#idle === 0) this.#idle = rss;
  }

  /** Call it at the very end of what is measured. */
  async end(): Promise<Watched> {
    const { cpu, peak, rss, processes } = await this.#usage();
    // Each process's own peak is exact, but those of several need not have been at the same time.
    const exact = processes === this.#pids.length;
    return { cpu: cpu - this.#cpu, idle: this.#idle, peak: exact ? peak : Math.max(this.#peak, rss) };
  }

  [Symbol.dispose](): void {
    this.#stop.abort();
  }

  async #look(): Promise<void> {
    const { signal } = this.#stop;
    try {
      for (; ; await sleep(INTERVAL, undefined, { signal })) this.#peak = Math.max(this.#peak, (await this.#usage()).rss);
    } catch {
      // The end of it; or one of them has died, which `end` finds out too.
    }
  }

  async #usage(): Promise<{ cpu: number; rss: number; peak: number; processes: number }> {
    const all = await Promise.all(this.#pids.map((pid) => usageOf(pid)));
    const sum = (of: (one: (typeof all)[number]) => number): number => all.reduce((total, one) => total + of(one), 0);
    return { cpu: sum((one) => one.cpu), rss: sum((one) => one.rss), peak: sum((one) => one.peak), processes: sum((one) => one.processes) };
  }
}
