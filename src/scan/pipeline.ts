/** The journey of a request, from admission to the bytes or the verdict that it gets. */
import { GatewayError } from "../errors.ts";
import type { Entry } from "./admission.ts";
import { Advisers } from "./advisers.ts";
import { refusal, verdictAnswer } from "./answer.ts";
import { Deadline, Fanout, waitFor } from "./deadline.ts";
import { Examination, type ExaminationOptions, type Examined } from "./examination.ts";
import { KnownMedia, type KnownMediaOptions } from "./known-media.ts";
import { refuseOpaque } from "./opaque.ts";
import { type Finding, type Panel, type RecallOptions, type SharedFinding, panelOf } from "./recall.ts";
import type { DeliverableMedia, MediaAnswer, MediaRequest } from "./request.ts";
import type { ScanContext } from "./scanner.ts";
import { SingleFlight } from "./single-flight.ts";
import { sourceKey } from "./source-key.ts";

export interface PipelineOptions extends ExaminationOptions, KnownMediaOptions, RecallOptions {
  /** Milliseconds that a client waits for its answer to begin. */
  readonly wait: number;
  /** Whether a homeserver sees the clients' tokens, so that its yes says something of them. */
  readonly sendsTokens: boolean;
  /** Who asks, as far as scanners are to be told; absent where that is nothing. Rejects with a GatewayError, or the signal's reason. */
  readonly identify?: (request: MediaRequest, signal: AbortSignal) => Promise<ScanContext | undefined>;
}

/**
 * A leader's refusal is its own: whoever waited for it leads next. What the homeserver said to one token, or what went wrong on the way from it,
 * says nothing about the next request.
 */
const OWN_FAILURES: ReadonlySet<string> = new Set([
  "missing_token",
  "unknown_token",
  "not_found",
  "not_yet_uploaded",
  "rate_limited",
  "homeserver_failed",
]);

/** How often media may come back changed before the request gives up. */
const MAX_CHANGES = 3;

/**
 * Answers requests for media. Invariants: bytes leave only after every scanner passed those very bytes; bytes, and verdicts and failures of
 * plain media, reach only a request that the homeserver said yes to; whatever a request holds is given back when its answer is closed.
 */
export class Pipeline {
  readonly #options: PipelineOptions;
  readonly #advisers: Advisers;
  /** Who decides on downloads. */
  readonly panel: Panel;
  /** All media is looked at by the same, so that it shares what scanners can do. */
  readonly examination: Examination;
  readonly #known: KnownMedia;
  readonly #flights = new SingleFlight<Found>();
  readonly #running = new Set<PromiseLike<unknown>>();
  readonly #stop = new AbortController();
  readonly #ends = new Fanout(this.#stop.signal);
  #closing = false;

  constructor(options: PipelineOptions) {
    this.#options = options;
    const { spools, timeout, events } = options;
    this.#advisers = new Advisers({ timeout, crowded: () => spools.usage().waiting > 0, events });
    this.panel = panelOf(options);
    this.examination = new Examination(options, this.#advisers);
    this.#known = new KnownMedia(options, this.#advisers, this.panel.recall);
  }

  /**
   * Answers one request: media that every scanner said is clean, or the verdict.
   * @throws GatewayError with the answer that the client gets instead; the request signal's reason when the client has gone.
   */
  async serve(request: MediaRequest): Promise<MediaAnswer> {
    if (this.#closing) throw new GatewayError("shutting_down");
    const entry = this.#options.admission.enter(request.client);
    const { policy, wait } = this.#options;
    const deadline = new Deadline(wait, stillScanning, request.signal);
    let handedOn = false;
    try {
      const wanted = await this.#wanted(request, deadline.signal);
      // Until then it is not known what counts of earlier verdicts, and all of them would be made anew.
      if (!policy.isSettled) await waitFor(policy.settled, deadline.signal);
      const found = await this.#answer(wanted, entry, deadline);
      this.#noteYes(request);
      if (found.kind === "verdict") return found;
      const answer = request.onOpaque === "block" ? await refuseOpaque(found, this.#options.types, deadline.signal) : found;
      if (request.signal.aborted) {
        await answer.close();
        throw request.signal.reason;
      }
      // The answer begins: from here on only the client's own end ends it.
      deadline.lift();
      handedOn = true;
      return closing(answer, deadline, entry);
    } catch (error) {
      if (error instanceof GatewayError && error.code === "too_large") return refusal(request, error);
      throw error;
    } finally {
      if (!handedOn) {
        deadline[Symbol.dispose]();
        entry[Symbol.dispose]();
      }
    }
  }

  /** No new work; what runs may finish until the signal aborts, and is then ended. Resolves when nothing runs any more. */
  async shutdown(signal: AbortSignal): Promise<void> {
    this.#closing = true;
    const end = (): void => this.#stop.abort(new GatewayError("shutting_down"));
    if (signal.aborted) end();
    signal.addEventListener("abort", end, { once: true });
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
    // Advice that is left decides nothing, and is not waited for.
    await this.#advisers.close();
    signal.removeEventListener("abort", end);
  }

  /** The request with who asks, where scanners are to be told. */
  async #wanted(request: MediaRequest, signal: AbortSignal): Promise<MediaRequest> {
    const context = await this.#options.identify?.(request, signal);
    // Headers alone don't tell a file's type.
    const want = request.want === "head" && request.onOpaque === "block" ? "bytes" : request.want;
    return want === request.want && context === undefined ? request : { ...request, want, ...(context === undefined ? {} : { context }) };
  }

  async #answer(request: MediaRequest, entry: Entry, deadline: Deadline): Promise<MediaAnswer> {
    const key = sourceKey(request, this.#options);
    let alone = false;
    for (let changes = 0; changes < MAX_CHANGES;) {
      const found: Found = (await this.#remembered(key, request)) ?? (await this.#leadOrFollow(key, request, entry, alone, deadline));
      if (found.examined !== undefined) return this.#ownAnswer(key, request, found.examined);
      alone = found.alone ?? false;
      if (found.known === undefined) continue;
      const answer = await this.#known.answer(key, request, found.known, deadline);
      if (answer !== undefined) return answer;
      await this.#options.verdicts.forgetSource(key);
      changes += 1;
    }
    throw new GatewayError("homeserver_failed", { detail: "the homeserver sends other bytes each time it is asked" });
  }

  async #remembered(key: string, request: MediaRequest): Promise<Found | undefined> {
    const known = await this.panel.recall.source(key);
    if (known === undefined) return undefined;
    request.journal.via = "cache";
    return { known };
  }

  /** Scans, or waits for whoever scans the same source already, unless that was in vain before. */
  #leadOrFollow(key: string, request: MediaRequest, entry: Entry, alone: boolean, deadline: Deadline): Promise<Found> {
    if (alone) return this.#lead(request, this.#tracked(entry, this.#examineInTurn(key, request)), deadline);
    // The mxc is part of it for encrypted media too: who names other media beside a known hash fails alone.
    const { serverName, mediaId } = request.mxc;
    const flight = this.#flights.join(`${key} ${serverName}/${mediaId}`, () => this.#tracked(entry, this.#takeTurn(key, request)));
    return flight.led ? this.#lead(request, flight.result, deadline) : this.#follow(request, flight.result, deadline);
  }

  async #lead(request: MediaRequest, own: Promise<Found>, deadline: Deadline): Promise<Found> {
    request.journal.via = "scan";
    try {
      const found = await waitFor(own, deadline.signal);
      if (found.known !== undefined) request.journal.via = "other_request";
      return found;
    } catch (error) {
      // The scan goes on, and its verdict is kept; only the bytes have nobody to go to.
      own
        .then((found) => found.examined?.close())
        .catch((late: unknown) => {
          if (late !== error) this.#options.events.abandoned(request, late);
        });
      throw error;
    }
  }

  async #follow(request: MediaRequest, result: Promise<Found>, deadline: Deadline): Promise<Found> {
    request.journal.via = "other_request";
    try {
      const { source, decision } = findingOf(await waitFor(result, deadline.signal));
      // What was made for the leader says nothing of the original, so there is nothing to share, and nothing to wait for again.
      return decision.outcome === "sanitised" ? { alone: true } : { known: { source, decision } };
    } catch (error) {
      if (deadline.signal.aborted) throw error;
      if (error instanceof GatewayError && OWN_FAILURES.has(error.code)) return {};
      // What became of somebody else's scan is told only to those who may read the media.
      using _slot = await this.#options.admission.transfers.acquire(deadline.signal);
      const { body } = await this.#options.source.fetch(request.mxc, request.variant, request.credentials, deadline.signal, request.asked);
      body.destroy();
      throw error;
    }
  }

  /**
   * Scans, unless another instance scans the same source: then what it found counts. Who waits for that holds nothing but its place; and who waits for
   * a slot keeps nobody from it who has one.
   */
  async #takeTurn(key: string, request: MediaRequest): Promise<Found> {
    const { sharing, admission, keys } = this.#options;
    // Whoever reads the store can read the name.
    const name = sharing.alone ? "" : `source:${keys.flight(key, request.mxc)}`;
    const known = (): Promise<SharedFinding | undefined> => this.panel.recall.source(key);
    for (;;) {
      const turn = await sharing.lead(name, known, this.#stop.signal);
      if ("known" in turn) return turn;
      const free = admission.scans.tryAcquire();
      if (free !== undefined) return await this.#examineUnder(turn.lease, key, request).finally(() => free[Symbol.dispose]());
      await turn.lease?.[Symbol.asyncDispose]();
      using _slot = await this.#slot();
      const again = await sharing.tryLead(name, known);
      if (again === "taken") continue;
      return "known" in again ? again : await this.#examineUnder(again.lease, key, request);
    }
  }

  async #examineUnder(lease: AsyncDisposable | undefined, key: string, request: MediaRequest): Promise<Found> {
    try {
      return await this.#examine(key, request);
    } finally {
      // Nobody here waits for that, but a shutdown does.
      if (lease !== undefined) this.#awaited(lease[Symbol.asyncDispose]());
    }
  }

  async #examineInTurn(key: string, request: MediaRequest): Promise<Found> {
    using _slot = await this.#slot();
    return await this.#examine(key, request);
  }

  async #examine(key: string, request: MediaRequest): Promise<Found> {
    return { examined: await this.examination.run(key, request, this.panel, this.#ends) };
  }

  /** In its turn. @throws GatewayError `rate_limited`, `scanner_unavailable`; whatever ends the gateway. */
  async #slot(): Promise<Disposable> {
    const { admission, timeout } = this.#options;
    using time = new Deadline(timeout, waitedTooLong, this.#ends);
    return await admission.scans.acquire(time.signal);
  }

  /** The same work, which goes on without its client, and keeps its place for as long. */
  #tracked<T>(entry: Entry, work: Promise<T>): Promise<T> {
    const place = entry.share();
    this.#awaited(work, () => place[Symbol.dispose]());
    return work;
  }

  /** A shutdown waits for this work. */
  #awaited(work: PromiseLike<unknown>, then?: () => void): void {
    this.#running.add(work);
    const over = (): void => {
      this.#running.delete(work);
      then?.();
    };
    work.then(over, over);
  }

  /** The answer to whoever led the scan: its own download is what was scanned. */
  async #ownAnswer(key: string, request: MediaRequest, examined: Examined): Promise<MediaAnswer> {
    const { finding, media } = examined;
    const { source, decision } = finding;
    const close = (): Promise<void> => examined.close();
    try {
      const verdict = verdictAnswer(request, decision, this.#options.events);
      if (request.want !== "verdict") {
        const body = this.panel.recall.unlessBlocked(source.digest, media.body);
        const isOriginal = decision.outcome !== "sanitised";
        return {
          kind: "media",
          ...media,
          body: isOriginal ? this.#options.memory.keep(key, request.mxc, source, media, body) : body,
          close,
        };
      }
      await close();
      return verdict;
    } catch (error) {
      await close();
      throw error;
    }
  }

  /** The verdict of encrypted media may have come without the homeserver being asked, and an endpoint that needs no token looks at none. */
  #noteYes({ asked, attachment, client, want }: MediaRequest): void {
    const tokenSeen = this.#options.sendsTokens && (asked === undefined || asked.api === "client/v1/media");
    if (tokenSeen && (attachment === undefined || want !== "verdict")) this.#options.admission.proved(client);
  }
}

/** What a request goes on with: its own scan, a verdict made elsewhere, or (neither) another round. */
interface Found {
  readonly known?: SharedFinding;
  readonly examined?: Examined;
  /** The next round is not to be shared with anybody. */
  readonly alone?: boolean;
}

function findingOf({ known, examined }: Pick<Found, "known" | "examined">): Finding {
  const finding = known ?? examined?.finding;
  if (finding === undefined) throw new GatewayError("internal", { detail: "nothing was found out" });
  return finding;
}

function stillScanning(): GatewayError {
  return new GatewayError("still_scanning");
}

function waitedTooLong(): GatewayError {
  return new GatewayError("scanner_unavailable", { detail: "waited too long for its turn" });
}

/** The same media, letting go of the request's own things with it. */
function closing(media: DeliverableMedia, ...held: Disposable[]): DeliverableMedia {
  return {
    ...media,
    close: async () => {
      for (const one of held) one[Symbol.dispose]();
      await media.close();
    },
  };
}
