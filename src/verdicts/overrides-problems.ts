/** What an operator should know about overrides, as it stands: readiness shows it as long as it is so, the log once. */
import type { StoreLog } from "./redis-link.ts";

export class StandingProblems {
  readonly #log: StoreLog;
  #problems: readonly string[] = [];

  constructor(log: StoreLog) {
    this.#log = log;
  }

  /** All there are now. */
  set(problems: readonly string[]): void {
    for (const problem of problems) {
      if (!this.#problems.includes(problem)) this.#log.warn({ problem }, "overrides: something is wrong");
    }
    if (problems.length === 0 && this.#problems.length > 0) this.#log.info({}, "overrides: all is well again");
    this.#problems = problems;
  }

  health(): { readonly degraded: boolean; readonly problems: readonly string[] } {
    return { degraded: this.#problems.length > 0, problems: this.#problems };
  }
}

/** `1 override`, `2 overrides`. */
export function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}
