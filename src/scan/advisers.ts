/** Advisory scanners: asked beside those that decide, from the same bytes. What they say is told and counted, and that is all. */
import { GatewayError } from "../errors.ts";
import type { DetectedType } from "../media/mime.ts";
import type { ScanOutcome } from "../observability/metrics.ts";
import { contextFor } from "./audience.ts";
import { Deadline, waitFor } from "./deadline.ts";
import type { PipelineEvents } from "./events.ts";
import type { Commission } from "./request.ts";
import type { Scanner, ScanSubject, ScanVerdict } from "./scanner.ts";

export interface AdvisersOptions {
  /** Milliseconds that one may take over media. */
  readonly timeout: number;
  /** Whether requests wait for what the bytes of media take up. */
  readonly crowded: () => boolean;
  readonly events: Pick<PipelineEvents, "scanned" | "advised">;
}

/** Media that advice is wanted on. */
export interface AdviceSubject {
  readonly scanners: readonly Scanner[];
  readonly commission: Commission;
  readonly subject: ScanSubject;
  /** Of the subject, when it does not say. */
  readonly type: () => Promise<DetectedType>;
  /** Keeps the bytes until it is disposed of. */
  readonly hold: () => AsyncDisposable;
}

/** What was asked about one piece of media. It ends with the scan that it goes beside, unless it is told to go on. */
export interface Advice extends Disposable {
  /** The scan has come to its decision; the rest may take until its deadline, as long as nobody needs the room. */
  goOn(): void;
}

/** For each scan that an adviser takes at once, so many may be under way; a burst waits in line inside it, but a slow one holds no more than that. */
const UNDER_WAY_PER_CAPACITY = 4;

/** Why a piece of advice was given up, for a reason that is not its adviser's. */
const NOT_NEEDED = new Error("the advice is not needed any more");
const CROWDED = new Error("the room that its media takes is needed");

const NO_ADVICE: Advice = { goOn() {}, [Symbol.dispose]() {} };

/**
 * Invariants: nothing here ever fails or holds up what it goes beside; an adviser has a bounded number of scans under way, each of them with
 * a deadline; media held for advice alone is let go of as soon as its room is needed.
 */
export class Advisers {
  readonly #options: AdvisersOptions;
  readonly #underWay = new Map<Scanner, number>();
  /** Advice whose scan is over. */
  readonly #lingering = new Set<AbortController>();
  readonly #work = new Map<AbortController, Promise<void>>();
  readonly #closing = new AbortController();

  constructor(options: AdvisersOptions) {
    this.#options = options;
  }

  /** Asks all of them; returns at once and never throws. To be disposed of when the scan that it goes beside ends. */
  ask(subject: AdviceSubject): Advice {
    const { crowded } = this.#options;
    if (subject.scanners.length === 0 || this.#closing.signal.aborted) return NO_ADVICE;
    const end = new AbortController();
    this.#work.set(end, this.#askAll(subject, end));
    let goesOn = false;
    return {
      goOn: () => {
        goesOn = true;
        if (crowded()) end.abort(CROWDED);
        else if (this.#work.has(end)) this.#lingering.add(end);
      },
      [Symbol.dispose]: () => {
        if (!goesOn) end.abort(NOT_NEEDED);
      },
    };
  }

  /** Ends what goes on after its scan: its media takes room that a request waits for. */
  giveWay(): void {
    for (const end of this.#lingering) end.abort(CROWDED);
  }

  /** Ends all; resolves when no media is held any more. */
  async close(): Promise<void> {
    this.#closing.abort(NOT_NEEDED);
    await Promise.all(this.#work.values());
  }

  async #askAll(subject: AdviceSubject, end: AbortController): Promise<void> {
    await Promise.allSettled(subject.scanners.map((scanner) => this.#askOne(scanner, subject, end.signal)));
    this.#work.delete(end);
    this.#lingering.delete(end);
  }

  async #askOne(scanner: Scanner, { commission, subject, type, hold }: AdviceSubject, end: AbortSignal): Promise<void> {
    const { events, timeout } = this.#options;
    const underWay = this.#underWay.get(scanner) ?? 0;
    if (underWay >= UNDER_WAY_PER_CAPACITY * Math.max(1, scanner.capacity)) {
      events.advised(commission, scanner.name, "skipped", "too many of its scans are under way");
      return;
    }
    this.#underWay.set(scanner, underWay + 1);
    const started = performance.now();
    await using _bytes = hold();
    using time = new Deadline(timeout, tookTooLong, end, this.#closing.signal);
    const tell = (outcome: ScanOutcome, detail: string | undefined): void => {
      events.scanned(scanner.name, outcome, performance.now() - started);
      events.advised(commission, scanner.name, outcome, detail);
    };
    try {
      const known = subject.type ?? (scanner.needsType ? await waitFor(type(), time.signal) : undefined);
      const verdict = await scanner.scan(contextFor(scanner, { ...subject, type: known }), time.signal);
      tell(verdict.outcome, detailOf(verdict));
    } catch (error) {
      if (time.signal.reason === CROWDED) events.advised(commission, scanner.name, "skipped", CROWDED.message);
      else if (time.signal.reason !== NOT_NEEDED) tell("failed", error instanceof Error ? error.message : undefined);
    } finally {
      this.#underWay.set(scanner, (this.#underWay.get(scanner) ?? 1) - 1);
    }
  }
}

function tookTooLong(): GatewayError {
  return new GatewayError("scanner_unavailable", { detail: "the advice took longer than scan.timeout" });
}

function detailOf(verdict: ScanVerdict): string | undefined {
  switch (verdict.outcome) {
    case "clean":
      return undefined;
    case "infected":
      return verdict.threat;
    case "modified":
    case "unscannable":
      return verdict.why;
  }
}
