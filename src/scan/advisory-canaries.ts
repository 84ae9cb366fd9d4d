/** Canaries whose miss is told, not punished, unless a service is set to require them. */
import { ADVISORY, CANARY_ADVICE, isCaught } from "./canary-advice.ts";
import type { CanaryAnswer } from "./canary-run.ts";
import { type Canary, type CanaryKind, buildCanary } from "./canary-samples.ts";
import type { ProofLog } from "./proof.ts";
import { SingleFlight } from "./single-flight.ts";

/** They may keep an engine busy for seconds, so they go out once for each tag, and then seldom. */
const INTERVAL = 3_600_000;

export interface AdvisoryOptions {
  readonly name: string;
  /** Those that are required are not asked again; without any, nothing is (DLP). */
  readonly required: readonly CanaryKind[];
  /** Never rejects. */
  readonly send: (canary: Canary) => Promise<CanaryAnswer>;
  readonly log: Pick<ProofLog, "missed">;
  readonly clock: () => number;
}

export class AdvisoryCanaries {
  readonly #options: AdvisoryOptions;
  readonly #runs = new SingleFlight<void>();
  readonly #missed = new Map<CanaryKind, string>();
  #done: { readonly tag: string; readonly at: number } | undefined;

  constructor(options: AdvisoryOptions) {
    this.#options = options;
  }

  get warnings(): readonly string[] {
    return [...this.#missed.values()];
  }

  /** Sends them, unless that was done lately under this tag. Never rejects. */
  async run(tag: string): Promise<void> {
    if (this.#done?.tag === tag && this.#options.clock() - this.#done.at < INTERVAL) return;
    await this.#runs.join("", () => this.#run(tag)).result;
  }

  async #run(tag: string): Promise<void> {
    const { required, send, log, name, clock } = this.#options;
    for (const kind of ADVISORY) {
      if (required.includes(kind) || required.length === 0) continue;
      const answer = await send(buildCanary(kind));
      if ("why" in answer) return;
      const missed = !isCaught(kind, answer.outcome);
      if (missed !== this.#missed.has(kind)) log.missed(name, kind, missed, CANARY_ADVICE[kind]);
      if (missed) this.#missed.set(kind, `${name}: ${CANARY_ADVICE[kind]}`);
      else this.#missed.delete(kind);
    }
    this.#done = { tag, at: clock() };
  }
}
