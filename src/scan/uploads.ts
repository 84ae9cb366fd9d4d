/** The journey of an upload: whose it is, whether it is clean, and only then to the homeserver. */
import { GatewayError } from "../errors.ts";
import { type MediaStore, storedAt, type UploadTarget } from "../media/media-store.ts";
import type { HomeserverAnswer } from "../media/source.ts";
import type { UploadLimits } from "../media/upload-limits.ts";
import type { Admission } from "./admission.ts";
import { verdictAnswer } from "./answer.ts";
import { Deadline } from "./deadline.ts";
import type { PipelineEvents } from "./events.ts";
import type { Examination, Examined } from "./examination.ts";
import type { Foresight } from "./foresight.ts";
import type { Panel } from "./recall.ts";
import type { Reception, Visit, Visitor } from "./reception.ts";
import type { Commission } from "./request.ts";
import type { Scanner } from "./scanner.ts";

export interface UploadRequest extends Visitor {
  readonly target: UploadTarget;
  /** A media type, well-formed. */
  readonly contentType: string;
  readonly fileName: string | undefined;
  /**
   * Begins to read the body, exactly `size` bytes where that is known.
   * @throws (while it is read) GatewayError `client_gone`, `upload_too_slow`; the signal's reason.
   */
  readonly open: (signal: AbortSignal) => AsyncIterable<Buffer>;
}

export interface UploadsOptions {
  readonly reception: Reception;
  readonly admission: Admission;
  readonly examination: Examination;
  /** Who decides on uploads. */
  readonly panel: Panel;
  /** All that are asked about uploads, those whose word decides nothing too. */
  readonly scanners: readonly Scanner[];
  readonly store: MediaStore;
  readonly limits: UploadLimits;
  readonly foresight: Foresight;
  /** Milliseconds from the last byte to the verdict, and from there to the homeserver's answer. */
  readonly timeout: number;
  readonly events: PipelineEvents;
}

/**
 * Invariants: the homeserver gets no byte before every scanner passed all of them; who goes away before that leaves nothing anywhere. From then on the upload is
 * carried through, whether somebody waits for it or not, so that it is there whole, with its verdict, or not at all.
 */
export class Uploads {
  readonly #options: UploadsOptions;

  constructor(options: UploadsOptions) {
    this.#options = options;
  }

  /**
   * @returns the homeserver's answer, whatever it is.
   * @throws GatewayError with the answer that the client gets instead; the request's signal's reason when it has gone.
   */
  async upload(request: UploadRequest): Promise<HomeserverAnswer> {
    const { reception, scanners, limits } = this.#options;
    const limit = (user: string): Promise<number> => limits.of(user, request.credentials);
    try {
      return await reception.receive(request, { requiresToken: true, scanners, limit }, (visit) => this.#scanned(request, visit));
    } catch (error) {
      throw asToldToUploaders(error);
    }
  }

  /** Has the homeserver make a URI for an upload that is to come. Throws as `upload`. */
  async create({ credentials, client, signal }: Pick<Visitor, "credentials" | "client" | "signal">): Promise<HomeserverAnswer> {
    using _entry = this.#options.admission.enter(client);
    try {
      return await this.#options.store.create(credentials, signal);
    } catch (error) {
      throw asToldToUploaders(error);
    }
  }

  async #scanned(request: UploadRequest, { context, limit, time, stop }: Visit): Promise<HomeserverAnswer> {
    const { examination, panel, timeout, events } = this.#options;
    const { size, journal } = request;
    const commission: Commission = { mxc: undefined, attachment: undefined, journal, ...(context === undefined ? {} : { context }) };
    journal.via = "scan";
    const body = thenTimed(request.open(time.signal), time, timeout);
    const examined = await examination.examine(commission, panel, { from: "client", size, limit, body }, time.signal);
    try {
      verdictAnswer({ ...commission, want: "upload" }, examined.finding.decision, events);
      time.signal.throwIfAborted();
      return await this.#stored(request, commission, examined, stop);
    } finally {
      await examined.close();
    }
  }

  async #stored(request: UploadRequest, commission: Commission, examined: Examined, stop: AbortSignal): Promise<HomeserverAnswer> {
    const { panel, store, foresight, timeout } = this.#options;
    const { target, contentType, fileName, credentials } = request;
    using time = new Deadline(timeout, () => new GatewayError("homeserver_failed", { detail: "it took longer than scan.timeout" }), stop);
    const { media, finding } = examined;
    const body = panel.recall.unlessBlocked(finding.source.digest, media.body);
    const answer = await store.upload({ target, contentType, fileName, size: media.size, body }, credentials, time.signal);
    const mxc = storedAt(target, answer);
    const source = { variant: { kind: "download" }, attachment: undefined } as const;
    if (mxc !== undefined) await foresight.remember(examined, commission, { ...source, mxc }, panel);
    return answer;
  }
}

/** In words for somebody who has sent something, and fetched nothing. */
function asToldToUploaders(error: unknown): unknown {
  if (!(error instanceof GatewayError)) return error;
  if (error.code === "too_large") return new GatewayError("upload_too_large", { cause: error });
  if (error.code !== "homeserver_failed") return error;
  return new GatewayError("homeserver_failed", { info: "The homeserver could not take the file", cause: error });
}

/** The same bytes. What has to be done once the last of them is there has so much time. */
export async function* thenTimed(body: AsyncIterable<Buffer>, time: Deadline, milliseconds: number): AsyncGenerator<Buffer> {
  yield* body;
  time.extend(milliseconds, () => new GatewayError("scanner_unavailable", { detail: "the scan took longer than scan.timeout" }));
}
