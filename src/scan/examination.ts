/** Media that nobody knows yet: downloaded, hashed, decrypted and scanned in one pass, and the verdict kept. */
import { createAttachmentDecryptor, type Attachment, assertCounterRange } from "../crypto/attachment.ts";
import { GatewayError } from "../errors.ts";
import type { DetectedType, TypeDetector } from "../media/mime.ts";
import type { FetchedMedia, MediaSource } from "../media/source.ts";
import type { Spool, SpoolPool } from "../media/spool.ts";
import type { VerdictKeys } from "../verdicts/keys.ts";
import { PIECE_SIZE, type SourceRecord, type VerdictRecord, type VerdictStore } from "../verdicts/store.ts";
import type { Admission } from "./admission.ts";
import { Deadline, waitFor } from "./deadline.ts";
import type { PipelineEvents } from "./events.ts";
import { type Arrival, Intake } from "./intake.ts";
import type { Decision, Policy } from "./policy.ts";
import type { MediaRequest } from "./request.ts";
import type { ScanSubject } from "./scanner.ts";
import { SingleFlight } from "./single-flight.ts";

export interface ExaminationOptions {
  readonly source: MediaSource;
  readonly spools: SpoolPool;
  readonly types: TypeDetector;
  readonly policy: Policy;
  readonly verdicts: VerdictStore;
  readonly keys: VerdictKeys;
  readonly admission: Admission;
  /** Scans that may run while their media still arrives; the rest wait for the last byte, so that slow senders never hold all scanners. */
  readonly liveScans: () => number;
  /** Bytes. */
  readonly maxFileSize: number;
  /** Milliseconds that download and scan may take, and that they may wait for their turn. */
  readonly timeout: number;
  readonly events: PipelineEvents;
}

/** What a source holds, and what becomes of it. */
export interface Finding {
  readonly source: SourceRecord;
  readonly decision: Decision;
}

/** A finding with the bytes that it is about; whoever gets it must close it. */
export interface Examined {
  readonly finding: Finding;
  readonly fetched: FetchedMedia;
  readonly spool: Spool;
  close(): Promise<void>;
}

/** Milliseconds. */
const SPOOL_WAIT = 10_000;

export class Examination {
  readonly #options: ExaminationOptions;
  /** Scans of the same content under way, whatever their sources. */
  readonly #contents = new SingleFlight<Decision>();
  #live = 0;

  constructor(options: ExaminationOptions) {
    this.#options = options;
  }

  /**
   * Fetches with the request's own credentials and finds out. The request's own signal is not heeded: the verdict is wanted by others.
   * @throws GatewayError for whatever keeps a verdict from being had; the reason of `stop`.
   */
  async run(key: string, request: MediaRequest, stop: AbortSignal): Promise<Examined> {
    const { admission, source, maxFileSize, timeout } = this.#options;
    using time = new Deadline(timeout, () => new GatewayError("scanner_unavailable", { detail: "waited too long for its turn" }), stop);
    const { signal } = time;
    using _slot = await admission.scans.acquire(signal);
    time.extend(timeout, () => new GatewayError("scanner_unavailable", { detail: "download and scan took longer than scan.timeout" }));
    const fetched = await source.fetch(request.mxc, request.variant, request.credentials, signal);
    try {
      if (fetched.size !== undefined) {
        if (fetched.size > maxFileSize) throw new GatewayError("too_large");
        if (request.attachment !== undefined) assertCounterRange(request.attachment, fetched.size);
      }
      const spool = await spoolSoon(this.#options.spools, fetched.size ?? maxFileSize, signal);
      try {
        const finding = await this.#find(key, request, fetched, spool, signal);
        return { finding, fetched, spool, close: () => spool.close() };
      } catch (error) {
        await spool.close();
        throw error;
      }
    } finally {
      fetched.body.destroy();
    }
  }

  async #find(key: string, request: MediaRequest, fetched: FetchedMedia, spool: Spool, signal: AbortSignal): Promise<Finding> {
    const { verdicts, keys, policy } = this.#options;
    const intake = new Intake(request.attachment);
    const unneeded = new AbortController();
    const scanSignal = AbortSignal.any([signal, unneeded.signal]);
    const live = this.#scanWhileArriving(request, fetched, spool, intake, scanSignal);
    // Awaited below, but it may fail before that.
    live?.catch(() => undefined);
    try {
      const arrival = await this.#download(request, fetched, spool, intake, live);

      const content = keys.content(arrival.sha256, policy.fingerprint);
      const decision = await this.#decide(content, request, arrival, spool, intake, live, signal);
      const source: SourceRecord = { content, size: arrival.size, pieces: arrival.pieces };
      if (isKept(decision)) {
        await verdicts.rememberVerdict(content, decision);
        await verdicts.rememberSource(key, source);
      }
      return { source, decision };
    } finally {
      // The spool may be closed after this, so no scan may still be reading it.
      unneeded.abort(new Error("the scan is not needed any more"));
      await live?.catch(() => undefined);
    }
  }

  async #download(
    { journal }: MediaRequest,
    fetched: FetchedMedia,
    spool: Spool,
    intake: Intake,
    live: Promise<Decision> | undefined,
  ): Promise<Arrival> {
    const started = performance.now();
    let complete = false;
    // A scanner that fails in mid-way ends the download too; nobody could use it.
    live?.catch((error: unknown) => fetched.body.destroy(error instanceof Error ? error : undefined));
    try {
      for await (const chunk of fetched.body as AsyncIterable<Buffer>) {
        if (intake.size + chunk.length > this.#options.maxFileSize) throw new GatewayError("too_large");
        intake.update(chunk);
        await spool.write(chunk);
      }
      if (fetched.size !== undefined && intake.size !== fetched.size) {
        throw new GatewayError("homeserver_failed", { detail: `${intake.size} bytes came of ${fetched.size}` });
      }
      const arrival = intake.finish();
      spool.end();
      complete = true;
      return arrival;
    } catch (error) {
      const failure = error instanceof Error ? error : new GatewayError("internal", { cause: error });
      intake.fail(failure);
      spool.fail(failure);
      throw error;
    } finally {
      journal.size = intake.size;
      journal.downloadMs = performance.now() - started;
      this.#options.events.downloaded(complete, intake.size, journal.downloadMs);
    }
  }

  /** A large body of known size goes to the scanners while it arrives. A small one is hashed first: it may be known. */
  #scanWhileArriving(
    request: MediaRequest,
    fetched: FetchedMedia,
    spool: Spool,
    intake: Intake,
    signal: AbortSignal,
  ): Promise<Decision> | undefined {
    if (fetched.size === undefined || fetched.size <= PIECE_SIZE) return undefined;
    if (this.#live >= this.#options.liveScans()) return undefined;
    this.#live += 1;
    return this.#judge(request, fetched.size, spool, intake, signal).finally(() => (this.#live -= 1));
  }

  async #decide(
    content: string,
    request: MediaRequest,
    arrival: Arrival,
    spool: Spool,
    intake: Intake,
    live: Promise<Decision> | undefined,
    signal: AbortSignal,
  ): Promise<Decision> {
    const known = await this.#recall(content);
    if (known !== undefined) {
      request.journal.via = "cache";
      return known;
    }
    if (live !== undefined) return live;
    const flight = this.#contents.join(content, () => this.#judge(request, arrival.size, spool, intake, signal));
    // The leader's scan reads the leader's spool, so it is waited for to the end; a follower may give up.
    return flight.led ? flight.result : waitFor(flight.result, signal);
  }

  async #recall(content: string): Promise<VerdictRecord | undefined> {
    const record = await this.#options.verdicts.verdict(content);
    return record !== undefined && this.#options.policy.upholds(record) ? record : undefined;
  }

  async #judge(request: MediaRequest, size: number, spool: Spool, intake: Intake, signal: AbortSignal): Promise<Decision> {
    const { policy, types } = this.#options;
    const started = performance.now();
    let type: DetectedType | undefined;
    if (policy.needsType) {
      type = await types.detect(await waitFor(intake.prefix, signal));
      request.journal.mime = type.mime;
      const refused = policy.refuseType(type);
      if (refused !== undefined) return refused;
    }
    const subject: ScanSubject = { size, type, open: () => decrypted(spool, request.attachment) };
    const decision = await policy.judge(subject, signal);
    request.journal.scanMs = performance.now() - started;
    return decision;
  }
}

/**
 * Room in the spool. Who waits for it holds a slot and a connection, which others could use; so nobody waits for long.
 * @throws GatewayError `no_room`; the signal's reason.
 */
export async function spoolSoon(spools: SpoolPool, capacity: number, signal: AbortSignal): Promise<Spool> {
  using time = new Deadline(SPOOL_WAIT, () => new GatewayError("no_room", { detail: "slow readers hold the spool" }), signal);
  return await spools.create(capacity, time.signal);
}

/** Errors are never kept, nor is what only the operator's leniency or a scanner's mood decided. */
function isKept(decision: Decision): decision is VerdictRecord {
  return decision.outcome === "clean" || decision.outcome === "infected" || decision.outcome === "type_forbidden";
}

function decrypted(spool: Spool, attachment: Attachment | undefined): AsyncIterable<Buffer> {
  return attachment === undefined ? spool.read() : decrypt(spool.read(), attachment);
}

async function* decrypt(ciphertext: AsyncIterable<Buffer>, attachment: Attachment): AsyncGenerator<Buffer> {
  const decryptor = createAttachmentDecryptor(attachment);
  for await (const chunk of ciphertext) yield decryptor.update(chunk);
}
