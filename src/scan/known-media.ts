/** Media whose verdict is known: fetched with the asker's own credentials, and checked against the record before a byte of it leaves. */
import { GatewayError } from "../errors.ts";
import type { FetchedMedia, MediaSource } from "../media/source.ts";
import type { SpoolPool } from "../media/spool-pool.ts";
import { PIECE_SIZE, type SourceRecord, type VerdictStore } from "../verdicts/store.ts";
import type { Admission } from "./admission.ts";
import type { Advisers } from "./advisers.ts";
import { mediaAnswer, verdictAnswer } from "./answer.ts";
import type { Deadline } from "./deadline.ts";
import type { PipelineEvents } from "./events.ts";
import { Line } from "./line.ts";
import type { MediaMemory } from "./media-memory.ts";
import { ChangedMediaError, receiveVerified, verifiedPieces } from "./pieces.ts";
import type { Recall, SharedFinding } from "./recall.ts";
import type { DeliverableMedia, Journal, MediaAnswer, MediaRequest, VerdictAnswer } from "./request.ts";
import { spoolSoon } from "./spool-soon.ts";

export interface KnownMediaOptions {
  readonly source: MediaSource;
  readonly spools: SpoolPool;
  readonly verdicts: VerdictStore;
  readonly admission: Admission;
  /** Media that may pass piece by piece at once, each holding up to a piece in memory; the rest goes through a spool. */
  readonly streams: number;
  /** Clean media that a permission of a moment ago suffices for. */
  readonly memory: MediaMemory;
  /** Whether the homeserver's yes to this very token for this media is so young that it need not be asked again. */
  readonly permits: (request: MediaRequest) => boolean;
  /** Milliseconds that a download may take. */
  readonly timeout: number;
  readonly events: PipelineEvents;
}

export class KnownMedia {
  readonly #options: KnownMediaOptions;
  readonly #advisers: Advisers;
  readonly #recall: Recall;
  readonly #streams: Line;

  constructor(options: KnownMediaOptions, advisers: Advisers, recall: Recall) {
    this.#options = options;
    this.#advisers = advisers;
    this.#recall = recall;
    this.#streams = new Line(options.streams, 0);
  }

  /**
   * The answer from a verdict that was made before. Undefined when the homeserver sent other bytes and none of them has left: they are
   * to be scanned.
   * @throws GatewayError with the answer that the client gets instead; the deadline's reason.
   */
  async answer(key: string, request: MediaRequest, known: SharedFinding, deadline: Deadline): Promise<MediaAnswer | undefined> {
    const { admission, source } = this.#options;
    // Whoever knows ciphertext hash, key and IV knows the content; its verdict needs no further permission.
    if (request.attachment !== undefined && request.want === "verdict") return this.#verdict(request, known);
    if (this.#options.permits(request)) {
      const answer = this.#remembered(key, request, known);
      if (answer !== undefined) return answer;
    }
    using _slot = admission.transfers.tryAcquire() ?? (await admission.transfers.acquire(deadline.signal));
    const fetched = await source.fetch(request.mxc, request.variant, request.credentials, deadline.signal, request.asked);
    // The homeserver's yes to this very request is there; what it refuses never gets here.
    let handedOn = false;
    try {
      // What is large and held need not come a second time.
      const held = fetched.size === known.source.size && fetched.size > PIECE_SIZE ? this.#held(key, request, known, fetched) : undefined;
      if (held !== undefined) return held;
      const answer = await this.#answerFrom(fetched, key, request, known, deadline);
      handedOn = answer.kind === "media" && request.want === "bytes";
      return answer;
    } catch (error) {
      if (!(error instanceof ChangedMediaError)) throw error;
      this.#options.events.changed(request, error.message);
      return undefined;
    } finally {
      if (!handedOn) fetched.body.destroy();
    }
  }

  /** What can be said without the homeserver, if that is enough. */
  #remembered(key: string, request: MediaRequest, known: SharedFinding): MediaAnswer | undefined {
    return request.want === "verdict" ? this.#verdict(request, known) : this.#held(key, request, known);
  }

  /** Media from memory, if it is there, with the headers of the homeserver's answer to this very request, if it was asked. */
  #held(key: string, request: MediaRequest, known: SharedFinding, headers?: FetchedMedia): MediaAnswer | undefined {
    const { source } = known;
    const held = request.want === "verdict" ? undefined : this.#options.memory.get(key, request.mxc, source);
    if (held === undefined) return undefined;
    try {
      this.#verdict(request, known);
      request.journal.size = source.size;
      const body = request.want === "head" ? nothing() : this.#recall.unlessBlocked(source.digest, slices(held.bytes));
      return mediaAnswer(headers ?? held, source.size, body, async () => held[Symbol.dispose]());
    } catch (error) {
      held[Symbol.dispose]();
      throw error;
    }
  }

  async #answerFrom(
    fetched: FetchedMedia,
    key: string,
    request: MediaRequest,
    known: SharedFinding,
    deadline: Deadline,
  ): Promise<MediaAnswer> {
    const { source: record } = known;
    const verdict = this.#verdict(request, known);
    if (fetched.size !== undefined && fetched.size !== record.size) throw new ChangedMediaError("the size is not what was scanned");
    request.journal.size = record.size;
    if (request.want === "head") return mediaAnswer(fetched, record.size, nothing(), async () => undefined);
    // No byte is handed on, so the record and its size are enough; small media is read all the same, which costs less than its connection.
    if (request.want === "verdict" && fetched.size !== undefined && record.size > PIECE_SIZE) return verdict;
    // What was downloaded is not kept for a second try, as it is while media is scanned. So it is worth waiting for.
    deadline.extend(
      this.#options.timeout,
      () => new GatewayError("homeserver_failed", { detail: "the download took longer than scan.timeout" }),
    );
    if (request.want === "verdict") {
      using download = this.#download(request);
      await receiveVerified(fetched.body, record, (chunk) => download.took(chunk));
      download.complete();
      return this.#recall.override(record.digest)?.outcome === "blocked" ? this.#verdict(request, known) : verdict;
    }
    const stream = record.size > PIECE_SIZE ? this.#streams.tryAcquire() : undefined;
    const answer =
      stream === undefined
        ? await this.#spooled(fetched, record, request, deadline.signal)
        : await streamed(fetched, record, this.#watched(this.#pieces(fetched, record, request), key, request), stream);
    return { ...answer, body: this.#options.memory.keep(key, request.mxc, record, fetched, answer.body) };
  }

  /** As operators have it now: what they say may be newer than the finding. @throws as `verdictAnswer`. */
  #verdict(request: MediaRequest, { source, decision }: SharedFinding): VerdictAnswer {
    return verdictAnswer(request, this.#recall.overrule(source.digest, decision), this.#options.events);
  }

  /** Known media, whole before it leaves: a slow reader then holds no connection to the homeserver. */
  async #spooled(fetched: FetchedMedia, record: SourceRecord, request: MediaRequest, signal: AbortSignal): Promise<DeliverableMedia> {
    const spool = await spoolSoon(this.#options.spools, record.size, signal, this.#advisers);
    try {
      using download = this.#download(request);
      await receiveVerified(fetched.body, record, (chunk) => {
        download.took(chunk);
        this.#recall.throwIfBlocked(record.digest);
        return spool.write(chunk);
      });
      download.complete();
      signal.throwIfAborted();
      this.#recall.throwIfBlocked(record.digest);
      spool.end();
    } catch (error) {
      await spool.close();
      throw error;
    }
    return mediaAnswer(fetched, record.size, this.#recall.unlessBlocked(record.digest, spool.read()), () => spool.close());
  }

  /** Bytes are already out when a later piece has changed: nothing can be answered any more, but the next request scans. */
  async *#watched(pieces: AsyncIterable<Buffer[]>, key: string, request: MediaRequest): AsyncGenerator<Buffer[]> {
    let released = false;
    try {
      for await (const piece of pieces) {
        yield piece;
        released = true;
      }
    } catch (error) {
      if (error instanceof ChangedMediaError && released) {
        await this.#options.verdicts.forgetSource(key);
        this.#options.events.changed(request, error.message);
      }
      throw error;
    }
  }

  /** Each after its digest matched, for as long as nobody blocks them. */
  async *#pieces({ body }: FetchedMedia, record: SourceRecord, request: MediaRequest): AsyncGenerator<Buffer[]> {
    using download = this.#download(request);
    for await (const piece of verifiedPieces(body, record)) {
      for (const part of piece) download.took(part);
      this.#recall.throwIfBlocked(record.digest);
      yield piece;
    }
    download.complete();
  }

  #download({ journal }: MediaRequest): Download {
    return new Download(journal, this.#options.events);
  }
}

/** Tells of a download, however it ends. */
class Download implements Disposable {
  readonly #journal: Journal;
  readonly #events: Pick<PipelineEvents, "downloaded">;
  readonly #started = performance.now();
  #bytes = 0;
  #complete = false;

  constructor(journal: Journal, events: Pick<PipelineEvents, "downloaded">) {
    this.#journal = journal;
    this.#events = events;
  }

  took({ length }: Buffer): undefined {
    this.#bytes += length;
  }

  complete(): void {
    this.#complete = true;
  }

  [Symbol.dispose](): void {
    const milliseconds = performance.now() - this.#started;
    this.#journal.downloadMs = milliseconds;
    this.#events.downloaded(this.#complete, this.#bytes, milliseconds);
  }
}

/** Piece by piece: the first byte does not wait for the last. Takes the slot over, whatever happens. */
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
      await pieces.return(undefined);
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

/** As large as those that leave while they come: between any two it is looked whether the next may. */
async function* slices(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let from = 0; from < bytes.length; from += PIECE_SIZE) yield bytes.subarray(from, from + PIECE_SIZE);
}

async function* nothing(): AsyncGenerator<Buffer> {}
