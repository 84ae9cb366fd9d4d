/** The journey of a file that is checked before it is uploaded: it goes nowhere but to the scanners. */
import type { Attachment } from "../crypto/attachment.ts";
import { GatewayError } from "../errors.ts";
import type { Spool } from "../media/spool.ts";
import { refusal, verdictAnswer } from "./answer.ts";
import type { Arriving } from "./content-scans.ts";
import type { PipelineEvents } from "./events.ts";
import type { Examination } from "./examination.ts";
import type { Panel } from "./recall.ts";
import type { Reception, Visit, Visitor } from "./reception.ts";
import type { Commission, VerdictAnswer } from "./request.ts";
import type { Scanner } from "./scanner.ts";
import { thenTimed } from "./uploads.ts";

/** Bytes that a file has, as far as that is known before it comes. */
export interface SizeBounds {
  readonly atLeast: number;
  readonly atMost: number;
}

export interface FileCheckRequest extends Omit<Visitor, "size"> {
  readonly bounds: SizeBounds | undefined;
  /**
   * Reads the whole body: the file's bytes go to `write`, which is waited for and whose errors come through. The body is read through `timed`: with its
   * last byte begins the time in which all has to end.
   * @returns what they are encrypted with, if they are: it may come behind them.
   * @throws GatewayError for what can't be read or decrypted; the signal's reason.
   */
  readonly read: (
    write: (bytes: Buffer) => Promise<void>,
    signal: AbortSignal,
    timed: (body: AsyncIterable<Buffer>) => AsyncIterable<Buffer>,
  ) => Promise<Attachment | undefined>;
}

export interface FileChecksOptions {
  readonly reception: Reception;
  readonly examination: Examination;
  /** Who decides: all who do on uploads, and on downloads. */
  readonly panel: Panel;
  readonly scanners: readonly Scanner[];
  readonly requiresToken: boolean;
  /** Bytes. */
  readonly maxFileSize: number;
  /** Milliseconds from the last byte to the verdict. */
  readonly timeout: number;
  readonly events: PipelineEvents;
}

export class FileChecks {
  readonly #options: FileChecksOptions;

  constructor(options: FileChecksOptions) {
    this.#options = options;
  }

  /** @throws GatewayError with the answer that the client gets instead; the request's signal's reason when it has gone. */
  async check(request: FileCheckRequest): Promise<VerdictAnswer> {
    const { reception, scanners, requiresToken, maxFileSize } = this.#options;
    const visitor = { ...request, size: sizeWithin(request.bounds, maxFileSize) };
    try {
      return await reception.receive(visitor, { requiresToken, scanners }, (visit) => this.#checked(visitor, visit));
    } catch (error) {
      if (error instanceof GatewayError && error.code === "too_large") return refusal({ want: "verdict" }, error);
      throw error;
    }
  }

  async #checked(request: FileCheckRequest & Visitor, visit: Visit): Promise<VerdictAnswer> {
    const { timeout } = this.#options;
    const { limit, time } = visit;
    // How it is encrypted may be told behind it; so all of it is there before anything is made of it.
    const spool = await this.#options.examination.room(request.size ?? limit, time.signal);
    let attachment: Attachment | undefined;
    try {
      attachment = await request.read(
        (bytes) => spool.write(bytes),
        time.signal,
        (body) => thenTimed(body, time, timeout),
      );
      spool.end();
    } catch (error) {
      await spool.close();
      throw error;
    }
    return this.#examined(request, attachment, spool, visit);
  }

  /** Takes the spool over. */
  async #examined({ journal }: FileCheckRequest, attachment: Attachment | undefined, spool: Spool, visit: Visit): Promise<VerdictAnswer> {
    const { examination, panel, events } = this.#options;
    const { context, limit, time } = visit;
    const commission: Commission = { mxc: undefined, attachment, journal, ...(context === undefined ? {} : { context }) };
    const arriving: Arriving = { from: "client", size: spool.size, limit, body: spool.read(), spool };
    journal.via = "scan";
    const examined = await examination.examine(commission, panel, arriving, time.signal);
    await examined.close();
    return verdictAnswer({ ...commission, want: "verdict" }, examined.finding.decision, events);
  }
}

/** Bytes that such a file can have at most; more than `limit` only where it must have. */
function sizeWithin(bounds: SizeBounds | undefined, limit: number): number | undefined {
  if (bounds === undefined) return undefined;
  return bounds.atLeast > limit ? bounds.atLeast : Math.min(bounds.atMost, limit);
}
