/** Media that nobody knows yet: hashed, decrypted and scanned in one pass while it comes, and the verdict kept. */
import { createAttachmentDecryptor, type Attachment, assertCounterRange } from "../crypto/attachment.ts";
import { asGatewayError, GatewayError } from "../errors.ts";
import type { DetectedType, TypeDetector } from "../media/mime.ts";
import type { FetchedMedia, MediaSource } from "../media/source.ts";
import type { Spool, SpoolPool } from "../media/spool.ts";
import type { VerdictKeys } from "../verdicts/keys.ts";
import type { Sharing } from "../verdicts/sharing.ts";
import { type KeptVerdict, PIECE_SIZE, type SourceRecord, type VerdictRecord } from "../verdicts/store.ts";
import type { Advisers } from "./advisers.ts";
import { Deadline, waitFor } from "./deadline.ts";
import type { PipelineEvents } from "./events.ts";
import { type Arrival, Intake } from "./intake.ts";
import type { Decision } from "./policy.ts";
import type { Finding, Panel, RecallOptions } from "./recall.ts";
import { Replacements } from "./replacement.ts";
import type { Commission, DeliverableMedia, MediaRequest } from "./request.ts";
import type { ScanSubject } from "./scanner.ts";
import { SharedSpool } from "./shared-spool.ts";
import { SingleFlight } from "./single-flight.ts";

export interface ExaminationOptions extends Pick<RecallOptions, "verdicts"> {
  readonly source: MediaSource;
  readonly spools: SpoolPool;
  readonly types: TypeDetector;
  readonly keys: VerdictKeys;
  /** So that no content is scanned by two instances at once. */
  readonly sharing: Sharing;
  /** The rest wait for the last byte, so that slow senders never hold all scanners. */
  readonly liveScans: () => LiveScans;
  /** Bytes. */
  readonly maxFileSize: number;
  /** Milliseconds that download and scan may take. */
  readonly timeout: number;
  readonly events: PipelineEvents;
}

/** Scans that may run while their media still arrives, as far as the scanners of that direction go. All together are no more than the larger of the two. */
export interface LiveScans {
  readonly download: number;
  /** What clients bring takes half of these at most. */
  readonly upload: number;
}

/** Bytes on their way here. */
export interface Arriving extends Partial<Pick<FetchedMedia, "contentType" | "contentDisposition">> {
  readonly from: "homeserver" | "client";
  /** Of what comes, if that is known beforehand. */
  readonly size: number | undefined;
  /** Bytes that may come at most. */
  readonly limit: number;
  readonly body: AsyncIterable<Buffer>;
  /** Where all of them are already, if they are; it is taken over. */
  readonly spool?: Spool;
  /** Ends the body with this error, where nothing can come of the rest. */
  readonly giveUp?: (failure: Error) => void;
}

/** A finding with the bytes that it lets out, if it lets any out; whoever gets it must close it. */
export interface Examined {
  readonly finding: Finding;
  readonly arrival: Arrival;
  readonly media: Omit<DeliverableMedia, "kind" | "close">;
  close(): Promise<void>;
}

/** One request's media, and all that is held for it. */
interface Specimen {
  readonly commission: Commission;
  readonly panel: Panel;
  readonly arriving: Arriving;
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
  /** Scans of the same content under way, whatever their sources. */
  readonly #contents = new SingleFlight<Decided>();
  readonly #live = { homeserver: 0, client: 0 };

  constructor(options: ExaminationOptions, advisers: Advisers) {
    this.#options = options;
    this.#advisers = advisers;
  }

  /**
   * Fetches with the request's own credentials and finds out; whoever calls it holds a slot. The request's own signal is not heeded: the verdict is wanted by others.
   * @throws GatewayError for whatever keeps a verdict from being had; the reason of `stop`.
   */
  async run(key: string, request: MediaRequest, panel: Panel, stop: AbortSignal): Promise<Examined> {
    const { source, maxFileSize, timeout } = this.#options;
    using time = new Deadline(timeout, tookTooLong, stop);
    const { signal } = time;
    const fetched = await source.fetch(request.mxc, request.variant, request.credentials, signal, request.asked);
    try {
      if (fetched.size !== undefined) {
        if (fetched.size > maxFileSize) throw new GatewayError("too_large");
        if (request.attachment !== undefined) assertCounterRange(request.attachment, fetched.size);
      }
      return await this.examine(
        request,
        panel,
        { ...fetched, from: "homeserver", limit: maxFileSize, giveUp: (failure) => fetched.body.destroy(failure) },
        signal,
        key,
      );
    } finally {
      fetched.body.destroy();
    }
  }

  /**
   * Finds out what comes, to the last byte.
   * @param key of the source, if what is found is to be remembered for it.
   * @throws GatewayError for whatever keeps a verdict from being had, `too_large` among it; whatever the body throws; the signal's reason.
   */
  async examine(commission: Commission, panel: Panel, arriving: Arriving, signal: AbortSignal, key?: string): Promise<Examined> {
    const { types, maxFileSize } = this.#options;
    const shared = new SharedSpool(arriving.spool ?? (await this.room(arriving.size ?? arriving.limit, signal)));
    const { spool } = shared;
    await using held = new AsyncDisposableStack();
    const original = held.use(shared.hold());
    const replacements = held.use(new Replacements(() => this.room(maxFileSize, signal)));
    const intake = new Intake(commission.attachment);
    let type: Promise<DetectedType> | undefined;
    const typeOf = (): Promise<DetectedType> => (type ??= intake.prefix.then((prefix) => types.detect(prefix)));
    const specimen: Specimen = { commission, panel, arriving, shared, spool, intake, replacements, type: typeOf };
    const { finding, arrival } = await this.#find(key, specimen, signal);
    const open = held.move();
    const close = (): Promise<void> => open.disposeAsync();
    if (finding.decision.outcome !== "sanitised") {
      const { contentType, contentDisposition } = arriving;
      return { finding, arrival, media: { contentType, contentDisposition, size: finding.source.size, body: spool.read() }, close };
    }
    // Nobody gets the original; what is held of it would only take up room.
    await original[Symbol.asyncDispose]();
    const { kept } = replacements;
    if (kept === undefined) {
      await close();
      throw new GatewayError("internal", { detail: "what is to be handed on is not there" });
    }
    const contentDisposition = kept.sameType ? arriving.contentDisposition : undefined;
    return { finding, arrival, media: { contentType: kept.mime, contentDisposition, size: kept.size, body: kept.read() }, close };
  }

  /** Room in the spool, for bytes that are to be examined. @throws as `spoolSoon`. */
  room(capacity: number, signal: AbortSignal): Promise<Spool> {
    return spoolSoon(this.#options.spools, capacity, signal, this.#advisers);
  }

  async #find(
    key: string | undefined,
    specimen: Specimen,
    signal: AbortSignal,
  ): Promise<{ readonly finding: Finding; readonly arrival: Arrival }> {
    const { verdicts, keys } = this.#options;
    const { commission, panel } = specimen;
    const unneeded = new AbortController();
    const scanSignal = AbortSignal.any([signal, unneeded.signal]);
    const live = this.#scanWhileArriving(specimen, scanSignal);
    // Awaited below, but it may fail before that: the rest is then downloaded only where it may turn out that an operator allowed it.
    live?.catch((failure: unknown) => {
      if (!panel.recall.allowsAny) specimen.arriving.giveUp?.(asGatewayError(failure));
    });
    try {
      const arrival = await this.#receive(specimen);
      const { sha256, size, pieces } = arrival;
      const audience = panel.policy.audience(commission.context);
      const content = { key: keys.content(sha256, panel.policy.fingerprint, audience), digest: keys.digest(sha256) };
      const { decision, verdict } = await this.#decide(content, specimen, size, live, signal);
      const { digest } = content;
      const source: SourceRecord = { content: content.key, digest, size, pieces, ...(verdict === undefined ? {} : { verdict }) };
      // Of what is blocked, so that it is not downloaded each time somebody asks for it.
      if (key !== undefined && (verdict !== undefined || decision.outcome === "blocked")) await verdicts.rememberSource(key, source);
      return { finding: { source, decision: panel.recall.overrule(digest, decision) }, arrival };
    } finally {
      // The spool may be closed after this, so no scan may still be reading it; advice holds it for itself.
      unneeded.abort(new Error("the scan is not needed any more"));
      await live?.catch(() => undefined);
    }
  }

  async #receive({ commission, arriving, spool, intake }: Specimen): Promise<Arrival> {
    const { journal } = commission;
    const { from, size, limit, body } = arriving;
    const isThere = arriving.spool !== undefined;
    const started = performance.now();
    let complete = false;
    try {
      for await (const chunk of body) {
        if (intake.size + chunk.length > limit) throw new GatewayError("too_large");
        intake.update(chunk);
        if (!isThere) await spool.write(chunk);
      }
      if (size !== undefined && intake.size !== size) {
        throw new GatewayError("homeserver_failed", { detail: `${intake.size} bytes came of ${size}` });
      }
      const arrival = intake.finish();
      if (!isThere) spool.end();
      complete = true;
      return arrival;
    } catch (error) {
      const failure = error instanceof Error ? error : new GatewayError("internal", { cause: error });
      intake.fail(failure);
      spool.fail(failure);
      throw error;
    } finally {
      journal.size = intake.size;
      if (from === "homeserver") {
        journal.downloadMs = performance.now() - started;
        this.#options.events.downloaded(complete, intake.size, journal.downloadMs);
      }
    }
  }

  /** A large body of known size goes to the scanners while it arrives. A small one is hashed first: it may be known. */
  #scanWhileArriving(specimen: Specimen, signal: AbortSignal): Promise<Decision> | undefined {
    const { size, from } = specimen.arriving;
    if (size === undefined || size <= PIECE_SIZE) return undefined;
    const { download, upload } = this.#options.liveScans();
    const share = from === "client" ? Math.max(1, Math.floor(upload / 2)) : download;
    if (this.#live[from] >= share || this.#live.homeserver + this.#live.client >= Math.max(download, upload)) return undefined;
    this.#live[from] += 1;
    return this.#judge(specimen, size, signal).finally(() => (this.#live[from] -= 1));
  }

  async #decide(
    content: Content,
    specimen: Specimen,
    size: number,
    live: Promise<Decision> | undefined,
    signal: AbortSignal,
  ): Promise<Decided> {
    const overruled = await this.#overruled(content, specimen, signal);
    if (overruled !== undefined) return { decision: overruled };
    // Until then nothing is known to count, and all would be scanned anew.
    await waitFor(specimen.panel.policy.settled, signal);
    // Where a replacement would be handed on, another may be decided than where it would not.
    const name = takesReplacements(specimen) ? `${content.key} or its replacement` : content.key;
    const judge = (): Promise<Decision> => this.#judgeOnce(specimen, size, live, signal);
    const alone = (): Promise<Decided> => this.#unlessKnown(content, specimen, judge);
    for (;;) {
      const flight = this.#contents.join(name, live === undefined ? () => this.#lead(name, content, specimen, judge, signal) : alone);
      // The leader's scan reads the leader's spool, so it is waited for to the end; a follower may give up.
      if (flight.led) return flight.result;
      if (live !== undefined) return alone();
      try {
        const decided = await waitFor(flight.result, signal);
        specimen.commission.journal.via = "other_request";
        return decided.decision.outcome === "sanitised" ? await alone() : decided;
      } catch (error) {
        // A leader whose client has gone leaves its scan to the others.
        if (signal.aborted || !isGone(error)) throw error;
      }
    }
  }

  /** The scan that is under way. One that a client's slow sending had end without a verdict is made again, now that all is there. */
  async #judgeOnce(specimen: Specimen, size: number, live: Promise<Decision> | undefined, signal: AbortSignal): Promise<Decision> {
    if (live === undefined) return this.#judge(specimen, size, signal);
    try {
      return await live;
    } catch (error) {
      if (specimen.arriving.from !== "client" || signal.aborted || !isWithoutVerdict(error)) throw error;
      return this.#judge(specimen, size, signal);
    }
  }

  /** What operators want done with the content, whatever scanners say. */
  async #overruled({ digest }: Content, { panel, type }: Specimen, signal: AbortSignal): Promise<Decision | undefined> {
    const { policy, recall } = panel;
    const override = recall.override(digest);
    if (override?.outcome !== "allowed" || !policy.needsType) return override;
    return policy.refuseType(await waitFor(type(), signal)) ?? override;
  }

  /** Scans, unless another instance scans the same content: then its verdict counts. */
  async #lead(name: string, content: Content, specimen: Specimen, judge: () => Promise<Decision>, signal: AbortSignal): Promise<Decided> {
    let looks = 0;
    let last: KeptVerdict | undefined;
    const known = async (): Promise<KeptVerdict | undefined> => {
      looks += 1;
      last = await this.#options.verdicts.verdict(content.key, true);
      return ifCounts(content, specimen, last);
    };
    const turn = await this.#options.sharing.lead(`content:${name}`, known, signal);
    if ("known" in turn) {
      specimen.commission.journal.via = looks === 1 ? "cache" : "other_request";
      return { decision: turn.known.record, verdict: turn.known };
    }
    try {
      return await this.#keep(content, specimen, await judge(), last?.record);
    } finally {
      // Nobody here waits for that.
      void turn.lease[Symbol.asyncDispose]();
    }
  }

  /** Scans whoever else may be at it, unless the verdict is known by now. */
  async #unlessKnown(content: Content, specimen: Specimen, judge: () => Promise<Decision>): Promise<Decided> {
    const last = await this.#options.verdicts.verdict(content.key, true);
    const known = ifCounts(content, specimen, last);
    if (known === undefined) return this.#keep(content, specimen, await judge(), last?.record);
    specimen.commission.journal.via = "cache";
    return { decision: known.record, verdict: known };
  }

  /**
   * Remembers what may be kept of a decision that was just made. What another scan of the same content found infected in the meantime stands, for an
   * engine with older signatures may say the same ISTag.
   */
  async #keep(content: Content, specimen: Specimen, decision: Decision, last: VerdictRecord | undefined): Promise<Decided> {
    if (!isKept(decision)) return { decision };
    if (decision.outcome === "infected" && last?.outcome === "clean") this.#options.events.turned(specimen.commission, decision);
    const stays = (standing: KeptVerdict): boolean =>
      decision.outcome === "clean" && standing.record.outcome === "infected" && ifCounts(content, specimen, standing) !== undefined;
    const verdict = await this.#options.verdicts.rememberVerdict(content.key, decision, stays);
    return { decision: verdict?.record ?? decision, verdict };
  }

  async #judge(specimen: Specimen, size: number, signal: AbortSignal): Promise<Decision> {
    const { commission, panel, shared, spool, replacements, type } = specimen;
    const { types } = this.#options;
    const { policy } = panel;
    const { attachment, context, journal } = commission;
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
    const judging = policy.judge(subject, signal, takesReplacements(specimen) ? () => replacements.place() : undefined);
    using advice = this.#advisers.ask({ scanners: policy.advisers, commission, subject, type, hold: () => shared.hold() });
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

function ifCounts({ digest }: Content, { panel }: Specimen, verdict: KeptVerdict | undefined): KeptVerdict | undefined {
  return verdict !== undefined && panel.recall.counts(digest, verdict) ? verdict : undefined;
}

function tookTooLong(): GatewayError {
  return new GatewayError("scanner_unavailable", { detail: "download and scan took longer than scan.timeout" });
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

/** Never of encrypted media: the client could not decrypt it, and plain bytes of it would come to rest in the spool. */
function takesReplacements({ commission, panel }: Specimen): boolean {
  return commission.attachment === undefined && panel.policy.deliversReplacements;
}

function isGone(error: unknown): boolean {
  return error instanceof GatewayError && error.code === "client_gone";
}

function isWithoutVerdict(error: unknown): boolean {
  return error instanceof GatewayError && (error.code === "scanner_unavailable" || error.code === "unclear_verdict");
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
