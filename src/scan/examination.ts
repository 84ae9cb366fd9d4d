/** Media that nobody knows yet: downloaded, hashed, decrypted and scanned in one pass, and the verdict kept. */
import { createAttachmentDecryptor, type Attachment, assertCounterRange } from "../crypto/attachment.ts";
import { GatewayError } from "../errors.ts";
import type { DetectedType, TypeDetector } from "../media/mime.ts";
import type { FetchedMedia, MediaSource } from "../media/source.ts";
import type { Spool, SpoolPool } from "../media/spool.ts";
import type { VerdictKeys } from "../verdicts/keys.ts";
import type { Sharing } from "../verdicts/sharing.ts";
import { type KeptVerdict, PIECE_SIZE, type SourceRecord, type VerdictRecord } from "../verdicts/store.ts";
import type { Admission } from "./admission.ts";
import type { Advisers } from "./advisers.ts";
import { Deadline, waitFor } from "./deadline.ts";
import type { PipelineEvents } from "./events.ts";
import { type Arrival, Intake } from "./intake.ts";
import type { Decision } from "./policy.ts";
import type { Finding, Recall, RecallOptions } from "./recall.ts";
import { Replacements } from "./replacement.ts";
import type { DeliverableMedia, MediaRequest } from "./request.ts";
import type { ScanSubject } from "./scanner.ts";
import { SharedSpool } from "./shared-spool.ts";
import { SingleFlight } from "./single-flight.ts";

export interface ExaminationOptions extends RecallOptions {
  readonly source: MediaSource;
  readonly spools: SpoolPool;
  readonly types: TypeDetector;
  readonly keys: VerdictKeys;
  /** So that no content is scanned by two instances at once. */
  readonly sharing: Sharing;
  readonly admission: Admission;
  /** Scans that may run while their media still arrives; the rest wait for the last byte, so that slow senders never hold all scanners. */
  readonly liveScans: () => number;
  /** Bytes. */
  readonly maxFileSize: number;
  /** Milliseconds that download and scan may take, and that they may wait for their turn. */
  readonly timeout: number;
  readonly events: PipelineEvents;
}

/** A finding with the bytes that it lets out, if it lets any out; whoever gets it must close it. */
export interface Examined {
  readonly finding: Finding;
  readonly media: Omit<DeliverableMedia, "kind" | "close">;
  close(): Promise<void>;
}

/** One request's media, and all that is held for it. */
interface Specimen {
  readonly request: MediaRequest;
  readonly fetched: FetchedMedia;
  readonly shared: SharedSpool;
  readonly spool: Spool;
  readonly intake: Intake;
  readonly replacements: Replacements;
  /** What the decrypted bytes are; found out when it is first asked for. */
  readonly type: () => Promise<DetectedType>;
}

/** What was decided, and the verdict that is kept of it, if one is. */
interface Decided {
  readonly decision: Decision;
  readonly verdict?: KeptVerdict | undefined;
}

/** The decrypted bytes, by the keys that say which they are. */
interface Content {
  /** Of their verdict. */
  readonly key: string;
  readonly digest: string;
}

/** Milliseconds. */
const SPOOL_WAIT = 10_000;

export class Examination {
  readonly #options: ExaminationOptions;
  readonly #advisers: Advisers;
  readonly #recall: Recall;
  /** Scans of the same content under way, whatever their sources. */
  readonly #contents = new SingleFlight<Decided>();
  #live = 0;

  constructor(options: ExaminationOptions, advisers: Advisers, recall: Recall) {
    this.#options = options;
    this.#advisers = advisers;
    this.#recall = recall;
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
    const fetched = await source.fetch(request.mxc, request.variant, request.credentials, signal, request.asked);
    try {
      if (fetched.size !== undefined) {
        if (fetched.size > maxFileSize) throw new GatewayError("too_large");
        if (request.attachment !== undefined) assertCounterRange(request.attachment, fetched.size);
      }
      return await this.#examine(key, request, fetched, signal);
    } finally {
      fetched.body.destroy();
    }
  }

  async #examine(key: string, request: MediaRequest, fetched: FetchedMedia, signal: AbortSignal): Promise<Examined> {
    const { types, maxFileSize } = this.#options;
    const shared = new SharedSpool(await this.#room(fetched.size ?? maxFileSize, signal));
    const { spool } = shared;
    await using held = new AsyncDisposableStack();
    const original = held.use(shared.hold());
    const replacements = held.use(new Replacements(() => this.#room(maxFileSize, signal)));
    const intake = new Intake(request.attachment);
    let type: Promise<DetectedType> | undefined;
    const typeOf = (): Promise<DetectedType> => (type ??= intake.prefix.then((prefix) => types.detect(prefix)));
    const finding = await this.#find(key, { request, fetched, shared, spool, intake, replacements, type: typeOf }, signal);
    const open = held.move();
    const close = (): Promise<void> => open.disposeAsync();
    if (finding.decision.outcome !== "sanitised") {
      const { contentType, contentDisposition } = fetched;
      return { finding, media: { contentType, contentDisposition, size: finding.source.size, body: spool.read() }, close };
    }
    // Nobody gets the original; what is held of it would only take up room.
    await original[Symbol.asyncDispose]();
    const { kept } = replacements;
    if (kept === undefined) {
      await close();
      throw new GatewayError("internal", { detail: "what is to be handed on is not there" });
    }
    const contentDisposition = kept.sameType ? fetched.contentDisposition : undefined;
    return { finding, media: { contentType: kept.mime, contentDisposition, size: kept.size, body: kept.read() }, close };
  }

  #room(capacity: number, signal: AbortSignal): Promise<Spool> {
    return spoolSoon(this.#options.spools, capacity, signal, this.#advisers);
  }

  async #find(key: string, specimen: Specimen, signal: AbortSignal): Promise<Finding> {
    const { verdicts, keys, policy } = this.#options;
    const { request } = specimen;
    const unneeded = new AbortController();
    const scanSignal = AbortSignal.any([signal, unneeded.signal]);
    const live = this.#scanWhileArriving(specimen, scanSignal);
    // Awaited below, but it may fail before that.
    live?.catch(() => undefined);
    try {
      const { sha256, size, pieces } = await this.#download(specimen);
      const content = { key: keys.content(sha256, policy.fingerprint, policy.audience(request.context)), digest: keys.digest(sha256) };
      const { decision, verdict } = await this.#decide(content, specimen, size, live, signal);
      const { digest } = content;
      const source: SourceRecord = { content: content.key, digest, size, pieces, ...(verdict === undefined ? {} : { verdict }) };
      // Of what is blocked, so that it is not downloaded each time somebody asks for it.
      if (verdict !== undefined || decision.outcome === "blocked") await verdicts.rememberSource(key, source);
      return { source, decision: this.#recall.overrule(digest, decision) };
    } finally {
      // The spool may be closed after this, so no scan may still be reading it; advice holds it for itself.
      unneeded.abort(new Error("the scan is not needed any more"));
      await live?.catch(() => undefined);
    }
  }

  /** To the end, though a scanner may have failed by then: only the last byte tells whether an operator allows or blocks the content. */
  async #download({ request, fetched, spool, intake }: Specimen): Promise<Arrival> {
    const { journal } = request;
    const started = performance.now();
    let complete = false;
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
  #scanWhileArriving(specimen: Specimen, signal: AbortSignal): Promise<Decision> | undefined {
    const { size } = specimen.fetched;
    if (size === undefined || size <= PIECE_SIZE) return undefined;
    if (this.#live >= this.#options.liveScans()) return undefined;
    this.#live += 1;
    return this.#judge(specimen, size, signal).finally(() => (this.#live -= 1));
  }

  async #decide(
    content: Content,
    specimen: Specimen,
    size: number,
    live: Promise<Decision> | undefined,
    signal: AbortSignal,
  ): Promise<Decided> {
    const { request } = specimen;
    const overruled = await this.#overruled(content, specimen, signal);
    if (overruled !== undefined) return { decision: overruled };
    const last = await this.#options.verdicts.verdict(content.key, true);
    if (last !== undefined && this.#recall.counts(content.digest, last)) {
      request.journal.via = "cache";
      return { decision: last.record, verdict: last };
    }
    const judge = async (): Promise<Decided> =>
      this.#keep(content, request, await (live ?? this.#judge(specimen, size, signal)), last?.record);
    // Where a replacement would be handed on, another may be decided than where it would not.
    const name = this.#takesReplacements(request) ? `${content.key} or its replacement` : content.key;
    const flight = this.#contents.join(name, live === undefined ? () => this.#lead(name, content, request, judge, signal) : judge);
    // The leader's scan reads the leader's spool, so it is waited for to the end; a follower may give up.
    if (flight.led) return flight.result;
    if (live !== undefined) return judge();
    const decided = await waitFor(flight.result, signal);
    return decided.decision.outcome === "sanitised" ? judge() : decided;
  }

  /** What operators want done with the content, whatever scanners say. */
  async #overruled({ digest }: Content, { type }: Specimen, signal: AbortSignal): Promise<Decision | undefined> {
    const { policy } = this.#options;
    const override = this.#recall.override(digest);
    if (override?.outcome !== "allowed" || !policy.needsType) return override;
    return policy.refuseType(await waitFor(type(), signal)) ?? override;
  }

  /** Scans, unless another instance scans the same content: then its verdict counts. */
  async #lead(
    name: string,
    content: Content,
    { journal }: MediaRequest,
    judge: () => Promise<Decided>,
    signal: AbortSignal,
  ): Promise<Decided> {
    const { sharing, verdicts } = this.#options;
    const known = async (): Promise<KeptVerdict | undefined> => {
      const verdict = await verdicts.verdict(content.key, true);
      return verdict !== undefined && this.#recall.counts(content.digest, verdict) ? verdict : undefined;
    };
    const turn = await sharing.lead(`content:${name}`, known, signal);
    if ("known" in turn) {
      journal.via = "other_request";
      return { decision: turn.known.record, verdict: turn.known };
    }
    await using _lease = turn.lease;
    return await judge();
  }

  /** Remembers what may be kept of a decision that was just made. */
  async #keep({ key }: Content, request: MediaRequest, decision: Decision, last: VerdictRecord | undefined): Promise<Decided> {
    if (!isKept(decision)) return { decision };
    if (decision.outcome === "infected" && last?.outcome === "clean") this.#options.events.turned(request, decision);
    return { decision, verdict: await this.#options.verdicts.rememberVerdict(key, decision) };
  }

  /** Never of encrypted media: the client could not decrypt it, and plain bytes of it would come to rest in the spool. */
  #takesReplacements({ attachment }: MediaRequest): boolean {
    return attachment === undefined && this.#options.policy.deliversReplacements;
  }

  async #judge({ request, shared, spool, replacements, type }: Specimen, size: number, signal: AbortSignal): Promise<Decision> {
    const { policy, types } = this.#options;
    const { attachment, context, journal } = request;
    const started = performance.now();
    const known = policy.needsType ? await waitFor(type(), signal) : undefined;
    if (known !== undefined) {
      journal.mime = known.mime;
      const refused = policy.refuseType(known);
      if (refused !== undefined) return refused;
    }
    const subject: ScanSubject = {
      size,
      type: known,
      open: () => decrypted(spool, attachment),
      ...(context === undefined ? {} : { context }),
    };
    const judging = policy.judge(subject, signal, this.#takesReplacements(request) ? () => replacements.place() : undefined);
    using advice = this.#advisers.ask({ request, subject, type, hold: () => shared.hold() });
    const judgement = await judging;
    if (judgement.outcome !== "infected") advice.goOn();
    const decision =
      judgement.outcome === "replaced"
        ? await replacements.judge(judgement, { policy, types, original: type, context }, signal)
        : judgement;
    journal.scanMs = performance.now() - started;
    return decision;
  }
}

/**
 * Room in the spool. Who waits for it holds a slot and a connection, which others could use; so nobody waits for long.
 * @throws GatewayError `no_room`; the signal's reason.
 */
export async function spoolSoon(spools: SpoolPool, capacity: number, signal: AbortSignal, advisers: Advisers): Promise<Spool> {
  using time = new Deadline(SPOOL_WAIT, () => new GatewayError("no_room", { detail: "slow readers hold the spool" }), signal);
  const spool = spools.create(capacity, time.signal);
  if (spools.usage().waiting > 0) advisers.giveWay();
  return await spool;
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
