/** Media that nobody knows yet: hashed, decrypted and scanned in one pass while it comes. */
import { assertCounterRange } from "../crypto/attachment.ts";
import { asGatewayError, GatewayError } from "../errors.ts";
import type { DetectedType } from "../media/mime.ts";
import type { MediaSource } from "../media/source.ts";
import type { Spool } from "../media/spool.ts";
import type { SpoolPool } from "../media/spool-pool.ts";
import type { VerdictKeys } from "../verdicts/keys.ts";
import type { SourceRecord } from "../verdicts/store.ts";
import type { Advisers } from "./advisers.ts";
import { type Arriving, ContentScans, type ContentScansOptions, type Specimen } from "./content-scans.ts";
import { Deadline, LinkedController, type Parent } from "./deadline.ts";
import { decrypted } from "./decrypted.ts";
import { type Arrival, Intake } from "./intake.ts";
import { prefixOf } from "./prefix.ts";
import type { Finding, Panel } from "./recall.ts";
import { Replacements } from "./replacement.ts";
import type { Commission, DeliverableMedia, MediaRequest } from "./request.ts";
import { SharedSpool } from "./shared-spool.ts";
import { spoolSoon } from "./spool-soon.ts";

export interface ExaminationOptions extends ContentScansOptions {
  readonly source: MediaSource;
  readonly spools: SpoolPool;
  readonly keys: VerdictKeys;
  /** Bytes. */
  readonly maxFileSize: number;
  /** Milliseconds that download and scan may take. */
  readonly timeout: number;
}

/** A finding with the bytes that it lets out, if it lets any out; whoever gets it must close it. */
export interface Examined {
  readonly finding: Finding;
  readonly arrival: Arrival;
  readonly media: Omit<DeliverableMedia, "kind" | "close">;
  close(): Promise<void>;
}

export class Examination {
  readonly #options: ExaminationOptions;
  readonly #advisers: Advisers;
  readonly #scans: ContentScans;

  constructor(options: ExaminationOptions, advisers: Advisers) {
    this.#options = options;
    this.#advisers = advisers;
    this.#scans = new ContentScans(options, advisers);
  }

  /**
   * Fetches with the request's own credentials and finds out; whoever calls it holds a slot. The request's own signal is not heeded: the verdict is wanted by others.
   * @throws GatewayError for whatever keeps a verdict from being had; the reason of `stop`.
   */
  async run(key: string, request: MediaRequest, panel: Panel, stop: Parent): Promise<Examined> {
    const time = new Deadline(this.#options.timeout, tookTooLong, stop);
    try {
      return await this.#fetched(key, request, panel, time.signal);
    } finally {
      time[Symbol.dispose]();
    }
  }

  async #fetched(key: string, request: MediaRequest, panel: Panel, signal: AbortSignal): Promise<Examined> {
    const { source, maxFileSize } = this.#options;
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
    const original = shared.hold();
    const replacements = takesReplacements(commission, panel) ? new Replacements(() => this.room(maxFileSize, signal)) : undefined;
    const close = async (): Promise<void> => {
      await replacements?.[Symbol.asyncDispose]();
      await original[Symbol.asyncDispose]();
    };
    try {
      let type: Promise<DetectedType> | undefined;
      const typeOf = (): Promise<DetectedType> =>
        (type ??= prefixOf(decrypted(spool, commission.attachment)).then((prefix) => types.detect(prefix)));
      const specimen: Specimen = {
        commission,
        panel,
        arriving,
        shared,
        spool,
        intake: new Intake(commission.attachment),
        replacements,
        type: typeOf,
      };
      const { finding, arrival } = await this.#find(key, specimen, signal);
      if (finding.decision.outcome !== "sanitised") {
        const { contentType, contentDisposition } = arriving;
        return { finding, arrival, media: { contentType, contentDisposition, size: finding.source.size, body: spool.read() }, close };
      }
      // Nobody gets the original; what is held of it would only take up room.
      await original[Symbol.asyncDispose]();
      const kept = replacements?.kept;
      if (kept === undefined) throw new GatewayError("internal", { detail: "what is to be handed on is not there" });
      const contentDisposition = kept.sameType ? arriving.contentDisposition : undefined;
      return { finding, arrival, media: { contentType: kept.mime, contentDisposition, size: kept.size, body: kept.read() }, close };
    } catch (error) {
      await close();
      throw error;
    }
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
    const unneeded = new LinkedController(signal);
    const live = this.#scans.whileArriving(specimen, unneeded.signal);
    // Awaited below, but it may fail before that: the rest is then downloaded only where it may turn out that an operator allowed it.
    live?.catch((failure: unknown) => {
      if (!panel.recall.allowsAny) specimen.arriving.giveUp?.(asGatewayError(failure));
    });
    try {
      const arrival = await this.#receive(specimen);
      const { sha256, size, pieces } = arrival;
      const audience = panel.policy.audience(commission.context);
      const content = { key: keys.content(sha256, panel.policy.fingerprint, audience), digest: keys.digest(sha256) };
      const { decision, verdict } = await this.#scans.decide(content, specimen, size, live, signal);
      const { digest } = content;
      const source: SourceRecord = { content: content.key, digest, size, pieces, ...(verdict === undefined ? {} : { verdict }) };
      // Of what is blocked, so that it is not downloaded each time somebody asks for it.
      if (key !== undefined && (verdict !== undefined || decision.outcome === "blocked")) await verdicts.rememberSource(key, source);
      return { finding: { source, decision: panel.recall.overrule(digest, decision) }, arrival };
    } finally {
      if (live !== undefined) {
        // The spool may be closed after this, so no scan may still be reading it; advice holds it for itself.
        unneeded.abort(new Error("the scan is not needed any more"));
        await live.catch(() => undefined);
      }
      unneeded[Symbol.dispose]();
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
      spool.fail(error instanceof Error ? error : new GatewayError("internal", { cause: error }));
      throw error;
    } finally {
      journal.size = intake.size;
      if (from === "homeserver") {
        journal.downloadMs = performance.now() - started;
        this.#options.events.downloaded(complete, intake.size, journal.downloadMs);
      }
    }
  }
}

/** Never of encrypted media: the client could not decrypt it, and plain bytes of it would come to rest in the spool. */
function takesReplacements({ attachment }: Commission, { policy }: Panel): boolean {
  return attachment === undefined && policy.deliversReplacements;
}

function tookTooLong(): GatewayError {
  return new GatewayError("scanner_unavailable", { detail: "download and scan took longer than scan.timeout" });
}
