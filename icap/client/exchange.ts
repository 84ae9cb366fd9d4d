import type { StatusLine } from "../codec/head.ts";
import { HeaderBlock } from "../codec/headers.ts";
import type { IcapLimits } from "../codec/limits.ts";
import { MalformedMessage } from "../codec/malformed.ts";
import type { MessageHead } from "../codec/parser.ts";
import { IcapError } from "../errors.ts";
import { AnswerReader } from "./answer-reader.ts";
import { type Answer, type SentSection, answerOf, keepsOpen } from "./answer.ts";
import { type Connection, type ConnectionOwner, asError, isTimeoutNotice, systemCode } from "./connection.ts";
import { type Limit, NO_LIMIT } from "./deadline.ts";
import { ReturnedBody } from "./echo.ts";
import { BodySender, type SenderLink, endSource } from "./sender.ts";
import type { IcapTimeouts } from "./types.ts";

export interface ExchangeRequest {
  /** ICAP head and encapsulated heads. */
  readonly heads: string;
  /** Undefined for OPTIONS: the heads are all. */
  readonly body: (() => AsyncIterable<Uint8Array>) | undefined;
  readonly section: SentSection;
  readonly size: number;
  /** Bytes of the preview; undefined for none. */
  readonly preview: number | undefined;
  /** Gets what comes back once all was sent, piece by piece, and is waited for. */
  readonly take: ((bytes: Uint8Array) => Promise<void>) | undefined;
}

export interface ExchangeRules {
  readonly timeouts: IcapTimeouts;
  readonly limits: IcapLimits;
}

/**
 * A reused connection that ended before one byte of an answer (the server closed it as we wrote), or spoke before one byte of the request. Only this may be
 * tried again.
 */
export class StaleConnection extends IcapError {}

/** Bytes of an answer's body that are read beyond as many as were sent. */
const ANSWER_SLACK = 1024 * 1024;

/**
 * One request and its answer, read while the request is being sent (RFC 3507 section 4). An answer that begins before the last chunk
 * went out is settled by its head alone: a server that has not seen everything can't acquit, so its body proves nothing. What goes wrong
 * behind the ICAP head of a final answer is no exception but makes it `broken`, because that head may say that the file is infected.
 * The connection is destroyed on every failure, and when `reusable` is false. `limit` is for all of it.
 * @throws IcapError `timeout`, `closed_early`, `protocol`, `limit`, `body_size`; whatever the body or `take` throws; the signal's reason.
 */
export function exchange(
  connection: Connection,
  request: ExchangeRequest,
  rules: ExchangeRules,
  signal: AbortSignal,
  limit: Limit = NO_LIMIT,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    new Exchange(connection, request, rules, signal, limit, { resolve, reject }).start();
  });
}

interface Outcome {
  resolve(answer: Answer): void;
  reject(error: Error): void;
}

const NO_STEP: Limit & { readonly what: string } = { ...NO_LIMIT, what: "" };

class Exchange implements ConnectionOwner, SenderLink {
  readonly #connection: Connection;
  readonly #request: ExchangeRequest;
  readonly #rules: ExchangeRules;
  readonly #signal: AbortSignal;
  readonly #outcome: Outcome;
  readonly #body: ReturnedBody;
  readonly #reader: AnswerReader;
  readonly #limit: Limit;
  /** Of the step that it is at, if that has one. */
  #step: Limit & { readonly what: string } = NO_STEP;
  readonly #maxBody: number;
  #phase: "sending" | "previewed" | "sent" | "ended" = "sending";
  /** The source, as long as it has to be ended when the exchange is. */
  #source: AsyncIterator<Uint8Array> | undefined;
  #wake: (() => void) | undefined;
  #sent: Answer["sent"] = "part";
  /** What came back and nobody has taken yet: no more than one read, because nothing is read meanwhile. */
  readonly #untaken: Uint8Array[] = [];
  #taking = false;
  #wrote = false;

  constructor(connection: Connection, request: ExchangeRequest, rules: ExchangeRules, signal: AbortSignal, limit: Limit, outcome: Outcome) {
    this.#connection = connection;
    this.#request = request;
    this.#rules = rules;
    this.#signal = signal;
    this.#limit = limit;
    this.#outcome = outcome;
    this.#body = new ReturnedBody(request.size);
    this.#reader = new AnswerReader(rules.limits, (bytes) => this.#returned(bytes));
    this.#maxBody = rules.limits.answerBodyBytes ?? request.size + ANSWER_SLACK;
  }

  start(): void {
    this.#connection.serve(this);
    if (this.#signal.aborted) {
      this.#abort();
      return;
    }
    if (!this.#connection.usable) {
      this.gone(undefined);
      return;
    }
    this.#signal.addEventListener("abort", this.#abort, { once: true });
    this.#connection.due(this.#limit.until);
    void this.#send();
  }

  /** Never rejects. */
  async #send(): Promise<void> {
    const { heads, body, size, preview } = this.#request;
    try {
      if (body === undefined) {
        this.write([heads]);
      } else {
        this.#source = body()[Symbol.asyncIterator]();
        await new BodySender(this, heads, size, preview).send(this.#source);
      }
    } catch (error) {
      // One that failed by itself need not be ended.
      if (!(error instanceof IcapError)) this.#source = undefined;
      this.#fail(asError(error));
    }
    if (this.ended) return;
    this.#source = undefined;
    this.#phase = "sent";
    this.#awaitAnswer();
  }

  // What the sender asks for.

  get ended(): boolean {
    return this.#phase === "ended";
  }

  write(pieces: readonly (string | Uint8Array)[]): boolean {
    this.#wrote = true;
    return this.#connection.write(pieces);
  }

  async ready(): Promise<void> {
    if (this.ended) return;
    this.#begin(this.#rules.timeouts.write, "the server took nothing more");
    await this.#woken();
    this.#endStep();
  }

  async previewed(): Promise<void> {
    if (this.ended) return;
    this.#phase = "previewed";
    this.#awaitAnswer();
    await this.#woken();
    this.#endStep();
  }

  // What the connection reports.

  drained(): void {
    if (this.#phase === "sending") this.#wakeSender();
  }

  data(bytes: Buffer): void {
    if (this.#connection.reused && !this.#wrote) {
      if (!isTimeoutNotice(bytes)) this.#connection.refuse();
      this.#fail(new StaleConnection("protocol", "bytes came on a kept connection before anything was asked on it"));
      return;
    }
    try {
      this.#read(bytes);
    } catch (error) {
      const answered = this.#request.body !== undefined;
      this.#break(
        error instanceof MalformedMessage ? new IcapError(error.code, error.message, { cause: error, answered }) : asError(error),
      );
    }
  }

  gone(cause: Error | undefined): void {
    if (cause instanceof IcapError) {
      this.#fail(cause);
      return;
    }
    const { answer, ending } = this.#reader;
    // It is complete; only the one who takes the body is not there yet.
    if (ending !== undefined) return;
    if (answer !== undefined && this.#sent !== "all") {
      this.#succeed(answer, false);
      return;
    }
    const how = cause === undefined ? "" : ` (${systemCode(cause)})`;
    if (this.#connection.reused && !this.#reader.heard) {
      this.#fail(new StaleConnection("closed_early", `the server closed a kept connection${how}`, { cause }));
      return;
    }
    const when = this.#reader.heard
      ? "in the middle of its answer"
      : this.#phase === "sending"
        ? "before everything was sent"
        : "without an answer";
    this.#break(new IcapError("closed_early", `the server closed the connection ${when}${how}`, { cause }));
  }

  late(): void {
    const { what, milliseconds } =
      this.#step.until < this.#limit.until ? this.#step : { ...this.#limit, what: "the whole answer did not come" };
    this.#break(new IcapError("timeout", `${what} within ${milliseconds} ms`));
  }

  #read(bytes: Buffer): void {
    const reader = this.#reader;
    let at = 0;
    while (at < bytes.length) {
      if (reader.atStart) this.#sent = this.#sentSoFar();
      if (reader.ending !== undefined) this.#connection.refuse();
      at = reader.push(bytes, at);
      if (reader.takeContinue()) this.#continue();
    }
    if (reader.answer === undefined) return;
    const tooMuch = reader.ending === undefined && this.#body.size > this.#maxBody;
    if (this.#phase === "sending" || tooMuch) this.#succeed(reader.answer, false);
    else if (this.#untaken.length > 0) void this.#handOver(reader.answer);
    else this.#goOn(reader.answer);
  }

  #sentSoFar(): Answer["sent"] {
    if (!this.#connection.flushed) return "part";
    return this.#phase === "sent" ? "all" : this.#phase === "previewed" ? "preview" : "part";
  }

  #returned(bytes: Buffer): void {
    this.#body.push(bytes);
    if (this.#request.take !== undefined && this.#sent === "all") this.#untaken.push(bytes);
  }

  /** All that has come is read. */
  #goOn(head: MessageHead<StatusLine>): void {
    if (this.#reader.ending !== undefined) this.#succeed(head, true);
    else this.#begin(this.#rules.timeouts.answer, "nothing more of the answer's body came");
  }

  /** The server is not read, nor its time counted, until the body so far is taken. */
  async #handOver(head: MessageHead<StatusLine>): Promise<void> {
    if (this.#taking) return;
    this.#taking = true;
    this.#endStep();
    this.#connection.pause();
    try {
      for (let next = this.#untaken.shift(); next !== undefined && !this.ended; next = this.#untaken.shift())
        await this.#request.take?.(next);
    } catch (error) {
      this.#break(asError(error));
    }
    if (this.ended) return;
    this.#taking = false;
    this.#connection.resume();
    this.#goOn(head);
  }

  #continue(): void {
    if (this.#phase !== "previewed") throw new MalformedMessage("protocol", "an ICAP 100 that no preview asked for");
    this.#phase = "sending";
    this.#wakeSender();
  }

  #awaitAnswer(): void {
    // After a 100 and before any answer alike; once the head is there, its own deadline stands.
    if (this.#reader.answer === undefined) this.#begin(this.#rules.timeouts.answer, "no answer came");
  }

  /** It has so many milliseconds from now for this step. */
  #begin(milliseconds: number, what: string): void {
    if (this.ended) return;
    this.#step = { milliseconds, until: performance.now() + milliseconds, what };
    this.#connection.due(Math.min(this.#step.until, this.#limit.until));
  }

  #endStep(): void {
    if (this.ended) return;
    this.#step = NO_STEP;
    this.#connection.due(this.#limit.until);
  }

  #woken(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  #wakeSender(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  readonly #abort = (): void => {
    this.#fail(asError(this.#signal.reason));
  };

  #succeed(head: MessageHead<StatusLine>, complete: boolean, broken?: Error): void {
    const reusable = complete && keepsOpen(head) && this.#connection.flushed;
    const answer = answerOf({
      head,
      trailer: this.#reader.ending?.chunked?.trailer ?? HeaderBlock.empty,
      complete,
      broken,
      sent: this.#sent,
      section: this.#request.section,
      size: this.#request.size,
      returned: this.#body,
      reusable,
    });
    if (!reusable) this.#connection.destroy();
    this.#finish();
    this.#outcome.resolve(answer);
  }

  /** It can't go on. What a final answer's heads said by then is not lost with what should have come behind it. */
  #break(error: Error): void {
    if (this.ended) return;
    const answered = this.#request.body !== undefined && !this.#reader.atStart;
    const told =
      answered && error instanceof IcapError ? new IcapError(error.code, error.message, { cause: error.cause, answered }) : error;
    const { heads } = this.#reader;
    if (heads === undefined) this.#fail(told);
    else this.#succeed(heads, false, told);
  }

  #fail(error: Error): void {
    if (this.ended) return;
    this.#connection.destroy();
    this.#finish();
    this.#outcome.reject(error);
  }

  #finish(): void {
    this.#phase = "ended";
    this.#connection.due(Infinity);
    this.#signal.removeEventListener("abort", this.#abort);
    if (this.#source !== undefined) void endSource(this.#source);
    this.#source = undefined;
    this.#wakeSender();
  }
}
