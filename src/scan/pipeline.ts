/** The journey of a request, from admission to the bytes or the verdict that it gets. */
import { GatewayError } from "../errors.ts";
import type { TypeDetector } from "../media/mime.ts";
import type { FetchedMedia, MediaSource } from "../media/source.ts";
import type { SpoolPool } from "../media/spool.ts";
import type { VerdictKeys } from "../verdicts/keys.ts";
import { PIECE_SIZE, type SourceRecord, type VerdictStore } from "../verdicts/store.ts";
import { type Admission, type Entry, Line } from "./admission.ts";
import { Deadline, waitFor } from "./deadline.ts";
import type { PipelineEvents } from "./events.ts";
import { Examination, type Examined, type Finding } from "./examination.ts";
import { ChangedMediaError, verifiedPieces } from "./known-media.ts";
import type { Decision, Policy } from "./policy.ts";
import type { DeliverableMedia, MediaAnswer, MediaRequest, VerdictAnswer } from "./request.ts";
import { SingleFlight } from "./single-flight.ts";

export interface PipelineOptions {
  readonly source: MediaSource;
  readonly spools: SpoolPool;
  readonly types: TypeDetector;
  readonly policy: Policy;
  readonly verdicts: VerdictStore;
  readonly keys: VerdictKeys;
  readonly admission: Admission;
  /** Scans that may run while their media still arrives; the rest wait for the last byte, so that slow senders never hold all scanners. */
  readonly liveScans: number;
  /** Known media that may pass piece by piece at once, each holding up to a piece in memory; the rest goes through a spool. */
  readonly streams: number;
  /** Bytes. */
  readonly maxFileSize: number;
  /** Milliseconds that a client waits for its answer to begin. */
  readonly wait: number;
  /** Milliseconds that download and scan may take. */
  readonly timeout: number;
  readonly events: PipelineEvents;
}

/**
 * A leader's refusal is its own: whoever waited for it asks for itself. What the homeserver said to one token, or what went wrong on the way
 * from it, says nothing about the next request.
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

export class Pipeline {
  readonly #options: PipelineOptions;
  readonly #examination: Examination;
  readonly #flights = new SingleFlight<Finding>();
  readonly #streams: Line;
  readonly #work = new Set<Promise<unknown>>();
  readonly #stop = new AbortController();
  #closing = false;

  constructor(options: PipelineOptions) {
    this.#options = options;
    this.#examination = new Examination(options);
    this.#streams = new Line(options.streams, 0);
  }

  /**
   * Answers one request: media that every scanner said is clean, or the verdict.
   * @throws GatewayError with the answer that the client gets instead; the request signal's reason when the client has gone.
   */
  async serve(request: MediaRequest): Promise<MediaAnswer> {
    if (this.#closing) throw new GatewayError("shutting_down");
    const entry = this.#options.admission.enter(request.client);
    const deadline = new Deadline(this.#options.wait, () => new GatewayError("still_scanning"), request.signal);
    let handedOn = false;
    try {
      const answer = await this.#answer(request, entry, deadline);
      if (answer.kind === "verdict") return answer;
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
    signal.addEventListener("abort", end, { once: true });
    while (this.#work.size > 0) await Promise.allSettled(this.#work);
    signal.removeEventListener("abort", end);
  }

  async #answer(request: MediaRequest, entry: Entry, deadline: Deadline): Promise<MediaAnswer> {
    const key = this.#sourceKey(request);
    for (let changes = 0; changes < MAX_CHANGES;) {
      const { known, examined } = (await this.#recall(key, request)) ?? (await this.#lead(key, request, entry, deadline));
      if (examined !== undefined) return this.#ownAnswer(request, examined);
      if (known === undefined) continue;
      const answer = await this.#answerKnown(key, request, known, deadline);
      if (answer !== undefined) return answer;
      await this.#options.verdicts.forgetSource(key);
      changes += 1;
    }
    throw new GatewayError("homeserver_failed", { detail: "the homeserver sends other bytes each time it is asked" });
  }

  #sourceKey({ mxc, variant, attachment }: MediaRequest): string {
    if (attachment !== undefined) return this.#options.keys.encryptedSource(attachment);
    const parameters = variant.kind === "download" ? [] : [variant.width, variant.height, variant.method, variant.animated ?? ""];
    return this.#options.keys.plainSource(mxc, [variant.kind, ...parameters.map(String)]);
  }

  async #recall(key: string, request: MediaRequest): Promise<Found | undefined> {
    const source = await this.#options.verdicts.source(key);
    if (source === undefined) return undefined;
    const decision = await this.#options.verdicts.verdict(source.content);
    if (decision === undefined || !this.#options.policy.upholds(decision)) return undefined;
    request.journal.via = "cache";
    return { known: { source, decision } };
  }

  /** Scans, or waits for whoever scans the same source already. */
  async #lead(key: string, request: MediaRequest, entry: Entry, deadline: Deadline): Promise<Found> {
    // The mxc is part of it for encrypted media too: who names other media beside a known hash fails alone.
    const flightKey = `${key} ${request.mxc.serverName}/${request.mxc.mediaId}`;
    let own: Promise<Examined> | undefined;
    const flight = this.#flights.join(flightKey, async () => {
      own = this.#examine(key, request, entry.share());
      return (await own).finding;
    });
    if (own === undefined) return this.#follow(request, flight.result, deadline);
    try {
      request.journal.via = "scan";
      return { examined: await waitFor(own, deadline.signal) };
    } catch (error) {
      // The scan goes on, and its verdict is kept; only the bytes have nobody to go to.
      own
        .then((examined) => examined.close())
        .catch((late: unknown) => {
          if (late !== error) this.#options.events.abandoned(late);
        });
      throw error;
    }
  }

  async #follow(request: MediaRequest, result: Promise<Finding>, deadline: Deadline): Promise<Found> {
    try {
      request.journal.via = "other_request";
      return { known: await waitFor(result, deadline.signal) };
    } catch (error) {
      if (error instanceof GatewayError && OWN_FAILURES.has(error.code) && !deadline.signal.aborted) return {};
      throw error;
    }
  }

  async #examine(key: string, request: MediaRequest, place: Disposable): Promise<Examined> {
    using _place = place;
    using time = new Deadline(
      this.#options.timeout,
      () => new GatewayError("scanner_unavailable", { detail: "download and scan took longer than scan.timeout" }),
      this.#stop.signal,
    );
    const work = this.#examination.run(key, request, time.signal);
    this.#work.add(work);
    try {
      return await work;
    } finally {
      this.#work.delete(work);
    }
  }

  /** The answer to whoever led the scan: its own download is what was scanned. */
  async #ownAnswer(request: MediaRequest, examined: Examined): Promise<MediaAnswer> {
    const { finding, fetched, spool } = examined;
    try {
      const verdict = this.#verdictAnswer(request, finding.decision);
      if (request.want === "verdict") {
        await examined.close();
        return verdict;
      }
      return mediaAnswer(fetched, finding.source.size, spool.read(), () => examined.close());
    } catch (error) {
      await examined.close();
      throw error;
    }
  }

  /** An answer from a verdict made elsewhere; undefined when the homeserver sent other bytes and none of them has left. */
  async #answerKnown(key: string, request: MediaRequest, known: Finding, deadline: Deadline): Promise<MediaAnswer | undefined> {
    // Whoever knows ciphertext hash, key and IV knows the content; its verdict needs no further permission.
    if (request.attachment !== undefined && request.want === "verdict") return this.#verdictAnswer(request, known.decision);
    using _slot = await this.#options.admission.transfers.acquire(deadline.signal);
    const started = performance.now();
    const fetched = await this.#options.source.fetch(request.mxc, request.variant, request.credentials, deadline.signal);
    let streaming = false;
    try {
      // The homeserver's yes to this very request is there; what it refuses never gets here.
      const verdict = this.#verdictAnswer(request, known.decision);
      if (fetched.size !== undefined && fetched.size !== known.source.size) throw new ChangedMediaError("the size is not what was scanned");
      request.journal.size = known.source.size;
      if (request.want === "head") return mediaAnswer(fetched, known.source.size, nothing(), async () => undefined);
      const pieces = verifiedPieces(fetched.body, known.source);
      if (request.want === "verdict") {
        for await (const _piece of pieces);
        return verdict;
      }
      const stream = known.source.size > PIECE_SIZE ? this.#streams.tryAcquire() : undefined;
      if (stream === undefined) return await this.#spooled(fetched, known.source, pieces, deadline.signal);
      const answer = await streamed(fetched, known.source, this.#watched(pieces, request, key), stream);
      streaming = true;
      return answer;
    } catch (error) {
      if (!(error instanceof ChangedMediaError)) throw error;
      this.#options.events.changed(request, error.message);
      return undefined;
    } finally {
      request.journal.downloadMs = performance.now() - started;
      if (!streaming) fetched.body.destroy();
    }
  }

  /** Bytes are already out when a later piece has changed: nothing can be answered any more, but the next request scans. */
  async *#watched(pieces: AsyncIterable<Buffer[]>, request: MediaRequest, key: string): AsyncGenerator<Buffer[]> {
    try {
      yield* pieces;
    } catch (error) {
      if (error instanceof ChangedMediaError) {
        await this.#options.verdicts.forgetSource(key);
        this.#options.events.changed(request, error.message);
      }
      throw error;
    }
  }

  /** Known media, whole before it leaves: a slow reader then holds no connection to the homeserver. */
  async #spooled(
    fetched: FetchedMedia,
    record: SourceRecord,
    pieces: AsyncIterable<Buffer[]>,
    signal: AbortSignal,
  ): Promise<DeliverableMedia> {
    const spool = await this.#options.spools.create(record.size, signal);
    try {
      for await (const piece of pieces) for (const part of piece) await spool.write(part);
      spool.end();
    } catch (error) {
      await spool.close();
      throw error;
    }
    return mediaAnswer(fetched, record.size, spool.read(), () => spool.close());
  }

  /** @throws GatewayError that a download gets instead of the media. */
  #verdictAnswer(request: MediaRequest, decision: Decision): VerdictAnswer {
    noteDecision(request, decision);
    switch (decision.outcome) {
      case "clean":
        return { kind: "verdict", clean: true, info: "File is clean" };
      case "unscanned":
        this.#options.events.unscanned(request, decision.why);
        return { kind: "verdict", clean: true, info: "File could not be scanned and is let through" };
      case "type_forbidden":
        throw new GatewayError("type_forbidden", { detail: decision.mime });
      case "infected":
        return refusal(request, new GatewayError("infected", { detail: decision.threat }));
      case "unscannable":
        return refusal(request, new GatewayError("unscannable", { detail: decision.why }));
    }
  }
}

/** What a request goes on with: its own scan, a verdict made elsewhere, or (neither) another round. */
interface Found {
  readonly known?: Finding;
  readonly examined?: Examined;
}

/** A refusal of bytes is an error; of a verdict it is the verdict. */
function refusal(request: MediaRequest, error: GatewayError): VerdictAnswer {
  if (request.want !== "verdict") throw error;
  return { kind: "verdict", clean: false, info: String(error.body["info"]) };
}

function noteDecision({ journal }: MediaRequest, decision: Decision): void {
  journal.verdict = decision.outcome;
  if (decision.outcome === "infected") journal.threat = decision.threat;
  if (decision.outcome === "infected" || decision.outcome === "unscannable") journal.scanner = decision.scanner;
  if (decision.outcome === "type_forbidden") journal.mime = decision.mime;
}

function mediaAnswer(fetched: FetchedMedia, size: number, body: AsyncIterable<Buffer>, close: () => Promise<void>): DeliverableMedia {
  return { kind: "media", contentType: fetched.contentType, contentDisposition: fetched.contentDisposition, size, body, close };
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

/** Known media, piece by piece: the first byte does not wait for the last. Takes the slot over, whatever happens. */
async function streamed(
  fetched: FetchedMedia,
  record: SourceRecord,
  pieces: AsyncGenerator<Buffer[]>,
  slot: Disposable,
): Promise<DeliverableMedia> {
  try {
    // Before the first byte leaves, a change can still be answered with a new scan.
    const first = await pieces.next();
    return mediaAnswer(fetched, record.size, chained(first, pieces), async () => {
      fetched.body.destroy();
      slot[Symbol.dispose]();
    });
  } catch (error) {
    slot[Symbol.dispose]();
    throw error;
  }
}

async function* chained(first: IteratorResult<Buffer[]>, rest: AsyncGenerator<Buffer[]>): AsyncGenerator<Buffer> {
  if (first.done !== true) yield* first.value;
  for await (const piece of rest) yield* piece;
}

async function* nothing(): AsyncGenerator<Buffer> {}
