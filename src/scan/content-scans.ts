/** Content that is decided upon: scanned once, whoever else asks for it, here or at another instance, and the verdict kept. */
import { GatewayError } from "../errors.ts";
import type { DetectedType, TypeDetector } from "../media/mime.ts";
import type { FetchedMedia } from "../media/source.ts";
import type { Spool } from "../media/spool.ts";
import type { Sharing } from "../verdicts/sharing.ts";
import { type KeptVerdict, PIECE_SIZE, type VerdictRecord } from "../verdicts/store.ts";
import type { Advisers } from "./advisers.ts";
import { waitFor } from "./deadline.ts";
import { decrypted } from "./decrypted.ts";
import type { PipelineEvents } from "./events.ts";
import type { Intake } from "./intake.ts";
import type { Decision, Overridden, Replaced } from "./policy.ts";
import type { Panel, RecallOptions } from "./recall.ts";
import type { Replacements } from "./replacement.ts";
import type { Commission } from "./request.ts";
import type { ScanSubject } from "./scanner.ts";
import type { SharedSpool } from "./shared-spool.ts";
import { SingleFlight } from "./single-flight.ts";

export interface ContentScansOptions extends Pick<RecallOptions, "verdicts"> {
  readonly types: TypeDetector;
  /** So that no content is scanned by two instances at once. */
  readonly sharing: Sharing;
  /** The rest wait for the last byte, so that slow senders never hold all scanners. */
  readonly liveScans: () => LiveScans;
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

/** One request's media, and all that is held for it. */
export interface Specimen {
  readonly commission: Commission;
  readonly panel: Panel;
  readonly arriving: Arriving;
  readonly shared: SharedSpool;
  readonly spool: Spool;
  readonly intake: Intake;
  /** Undefined where none would be handed on. */
  readonly replacements: Replacements | undefined;
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

export class ContentScans {
  readonly #options: ContentScansOptions;
  readonly #advisers: Advisers;
  /** Scans of the same content under way, whatever their sources. */
  readonly #contents = new SingleFlight<Decided>();
  readonly #live = { homeserver: 0, client: 0 };

  constructor(options: ContentScansOptions, advisers: Advisers) {
    this.#options = options;
    this.#advisers = advisers;
  }

  /** A large body of known size goes to the scanners while it arrives. A small one is hashed first: it may be known. */
  whileArriving(specimen: Specimen, signal: AbortSignal): Promise<Decision> | undefined {
    const { size, from } = specimen.arriving;
    if (size === undefined || size <= PIECE_SIZE) return undefined;
    const { download, upload } = this.#options.liveScans();
    const share = from === "client" ? Math.max(1, Math.floor(upload / 2)) : download;
    if (this.#live[from] >= share || this.#live.homeserver + this.#live.client >= Math.max(download, upload)) return undefined;
    this.#live[from] += 1;
    return this.#judge(specimen, size, signal).finally(() => (this.#live[from] -= 1));
  }

  async decide(
    content: Content,
    specimen: Specimen,
    size: number,
    live: Promise<Decision> | undefined,
    signal: AbortSignal,
  ): Promise<Decided> {
    const override = specimen.panel.recall.override(content.digest);
    if (override !== undefined) return { decision: await overruled(override, specimen, signal) };
    // Until then nothing is known to count, and all would be scanned anew.
    if (!specimen.panel.policy.isSettled) await waitFor(specimen.panel.policy.settled, signal);
    // Where a replacement would be handed on, another may be decided than where it would not.
    const name = specimen.replacements === undefined ? content.key : `${content.key} or its replacement`;
    const judge = (): Promise<Decision> => this.#judgeOnce(specimen, size, live, signal);
    const alone = (): Promise<Decided> => this.#unlessKnown(content, specimen, judge);
    for (;;) {
      const flight = this.#contents.join(name, live === undefined ? () => this.#lead(name, content, specimen, judge, signal) : alone);
      // The leader's scan reads the leader's spool, so it is waited for to the end; a follower may give up.
      if (flight.led) return flight.result;
      if (live !== undefined) return alone();
      try {
        const decided = await waitFor(flight.result, signal);
        if (decided.decision.outcome === "sanitised") return await alone();
        specimen.commission.journal.via = "other_request";
        return decided;
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
      void turn.lease?.[Symbol.asyncDispose]();
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
    const judging = policy.judge(subject, signal, replacements && (() => replacements.place()));
    const advice = this.#advisers.ask({ scanners: policy.advisers, commission, subject, type, hold: () => shared.hold() });
    try {
      const judgement = await judging;
      if (judgement.outcome !== "infected") advice.goOn();
      const decision =
        judgement.outcome === "replaced"
          ? ((await replacements?.judge(judgement, { policy, types, original: type, context }, signal)) ?? withoutReplacement(judgement))
          : judgement;
      journal.scanMs = performance.now() - started;
      return decision;
    } finally {
      advice[Symbol.dispose]();
    }
  }
}

/** What is decided where a replacement is not to be handed on. */
function withoutReplacement({ why, by }: Replaced): Decision {
  return { outcome: "modified", why, scanner: by.name };
}

function ifCounts({ digest }: Content, { panel }: Specimen, verdict: KeptVerdict | undefined): KeptVerdict | undefined {
  return verdict !== undefined && panel.recall.counts(digest, verdict) ? verdict : undefined;
}

/** What operators want done with the content, whatever scanners say. */
async function overruled(override: Overridden, { panel: { policy }, type }: Specimen, signal: AbortSignal): Promise<Decision> {
  if (override.outcome !== "allowed" || !policy.needsType) return override;
  return policy.refuseType(await waitFor(type(), signal)) ?? override;
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
