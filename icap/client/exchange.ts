import type { HttpResponseHead, StatusLine } from "../codec/head.ts";
import { HeaderBlock } from "../codec/headers.ts";
import type { IcapLimits } from "../codec/limits.ts";
import { MalformedMessage } from "../codec/malformed.ts";
import type { MessageHead } from "../codec/parser.ts";
import { IcapError } from "../errors.ts";
import { AnswerReader } from "./answer-reader.ts";
import { type Connection, type ConnectionOwner, asError, systemCode } from "./connection.ts";
import { Deadline } from "./deadline.ts";
import { EchoComparison } from "./echo.ts";
import { BodySender, type SenderLink } from "./sender.ts";
import type { IcapTimeouts } from "./types.ts";

export interface ExchangeRequest {
  /** ICAP head and encapsulated heads. */
  readonly heads: string;
  /** Undefined for OPTIONS: the heads are all. */
  readonly body: (() => AsyncIterable<Uint8Array>) | undefined;
  readonly size: number;
  /** Bytes of the preview; undefined for none. */
  readonly preview: number | undefined;
}

export interface Answer {
  readonly status: number;
  /** Those of the trailer included. */
  readonly headers: HeaderBlock;
  readonly http: HttpResponseHead | undefined;
  /** The returned body beside the sent one: `identical` is the same length and the same SHA-256, complete with its last chunk. */
  readonly body: "none" | "identical" | "different";
  /** Whether the last chunk had been handed to the system when the answer's first byte came. */
  readonly sent: "all" | "part";
  /** Both messages are complete and the server keeps the connection open. */
  readonly reusable: boolean;
}

export interface ExchangeRules {
  readonly timeouts: IcapTimeouts;
  readonly limits: IcapLimits;
}

/** A reused connection that ended before one byte of an answer: the server closed it as we wrote. Only this may be tried again. */
export class StaleConnection extends IcapError {}

/** Bytes of an answer's body that are read beyond as many as were sent. */
const ANSWER_SLACK = 1024 * 1024;

/**
 * One request and its answer, read while the request is being sent (RFC 3507 section 4). An answer that begins before the last chunk
 * went out is settled by its head alone: a server that has not seen everything can't acquit, so its body proves nothing.
 * The connection is destroyed on every failure, and when `reusable` is false.
 * @throws IcapError `timeout`, `closed_early`, `protocol`, `limit`, `body_size`; whatever the body throws; the signal's reason.
 */
export function exchange(connection: Connection, request: ExchangeRequest, rules: ExchangeRules, signal: AbortSignal): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  new Exchange(connection, request, rules, signal, { resolve, reject }).start();
  return promise;
}

interface Outcome {
  resolve(answer: Answer): void;
  reject(error: Error): void;
}

class Exchange implements ConnectionOwner, SenderLink {
  readonly #connection: Connection;
  readonly #request: ExchangeRequest;
  readonly #rules: ExchangeRules;
  readonly #signal: AbortSignal;
  readonly #outcome: Outcome;
  readonly #echo = new EchoComparison();
  readonly #reader: AnswerReader;
  readonly #deadline = new Deadline((error) => this.#fail(error));
  readonly #maxBody: number;
  #phase: "sending" | "previewed" | "sent" | "ended" = "sending";
  /** The source, as long as it has to be ended when the exchange is. */
  #source: AsyncIterator<Uint8Array> | undefined;
  #wake: (() => void) | undefined;
  #sentAll = false;

  constructor(connection: Connection, request: ExchangeRequest, rules: ExchangeRules, signal: AbortSignal, outcome: Outcome) {
    this.#connection = connection;
    this.#request = request;
    this.#rules = rules;
    this.#signal = signal;
    this.#outcome = outcome;
    this.#reader = new AnswerReader(rules.limits, this.#echo);
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
    this.#send().catch((error: unknown) => {
      this.#fail(asError(error));
    });
  }

  async #send(): Promise<void> {
    const { heads, body, size, preview } = this.#request;
    if (body === undefined) {
      this.#connection.write([heads]);
    } else {
      this.#source = body()[Symbol.asyncIterator]();
      try {
        await new BodySender(this, heads, size, preview).send(this.#source);
      } catch (error) {
        if (!(error instanceof IcapError)) this.#source = undefined;
        throw error;
      }
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
    return this.#connection.write(pieces);
  }

  async ready(): Promise<void> {
    if (this.ended) return;
    this.#deadline.set(this.#rules.timeouts.write, "the server took nothing more");
    await this.#woken();
    this.#deadline.clear();
  }

  async previewed(): Promise<void> {
    if (this.ended) return;
    this.#phase = "previewed";
    this.#awaitAnswer();
    await this.#woken();
    this.#deadline.clear();
  }

  sending(bytes: Uint8Array): void {
    this.#echo.sent(bytes);
  }

  // What the connection reports.

  drained(): void {
    if (this.#phase === "sending") this.#wakeSender();
  }

  data(bytes: Buffer): void {
    try {
      this.#read(bytes);
    } catch (error) {
      this.#fail(error instanceof MalformedMessage ? new IcapError(error.code, error.message, { cause: error }) : asError(error));
    }
  }

  gone(cause: Error | undefined): void {
    if (cause instanceof IcapError) {
      this.#fail(cause);
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
    this.#fail(new IcapError("closed_early", `the server closed the connection ${when}${how}`, { cause }));
  }

  idled(): void {
    // Only a resting connection is watched for idleness; an exchange has its deadline.
  }

  #read(bytes: Buffer): void {
    const reader = this.#reader;
    const hadHead = reader.head !== undefined;
    let at = 0;
    while (at < bytes.length) {
      if (reader.atStart) this.#sentAll = this.#phase === "sent" && this.#connection.flushed;
      at = reader.push(bytes, at);
      if (reader.takeContinue()) this.#continue();
    }
    const { head, end } = reader;
    if (head === undefined) return;
    if (this.#phase === "sending") this.#succeed(head, false, false);
    else if (end !== undefined) this.#succeed(head, true, this.#keepsOpen(head), end.chunked?.trailer);
    else if (this.#echo.returnedBytes > this.#maxBody) this.#succeed(head, false, false);
    else if (hadHead) this.#deadline.extend();
    else this.#deadline.set(this.#rules.timeouts.answer, "nothing more of the answer's body came");
  }

  #continue(): void {
    if (this.#phase !== "previewed") throw new MalformedMessage("protocol", "an ICAP 100 that no preview asked for");
    this.#phase = "sending";
    this.#wakeSender();
  }

  #keepsOpen(head: MessageHead<StatusLine>): boolean {
    // A 200 without an Encapsulated header may have a body all the same: where it ends can't be told.
    const framed = head.body !== undefined || head.start.status === 204;
    return framed && this.#connection.flushed && !head.headers.lists("connection", "close");
  }

  #returnedBody(head: MessageHead<StatusLine>, complete: boolean): Answer["body"] {
    if (head.body === undefined) return "none";
    // Nothing came back for nothing.
    if (head.body === "null-body") return this.#request.size === 0 && head.httpResponse !== undefined ? "identical" : "none";
    return complete && head.body === "res-body" && this.#sentAll && this.#echo.identical() ? "identical" : "different";
  }

  #awaitAnswer(): void {
    // After a 100 and before any answer alike; once the head is there, its own deadline stands.
    if (this.#reader.head === undefined) this.#deadline.set(this.#rules.timeouts.answer, "no answer came");
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

  readonly #abort = (): void => this.#fail(asError(this.#signal.reason));

  #succeed(head: MessageHead<StatusLine>, complete: boolean, reusable: boolean, trailer = HeaderBlock.empty): void {
    const answer: Answer = {
      status: head.start.status,
      headers: head.headers.with(trailer),
      http: head.httpResponse,
      body: this.#returnedBody(head, complete),
      sent: this.#sentAll ? "all" : "part",
      reusable,
    };
    if (!reusable) this.#connection.destroy();
    this.#finish();
    this.#outcome.resolve(answer);
  }

  #fail(error: Error): void {
    if (this.ended) return;
    this.#connection.destroy();
    this.#finish();
    this.#outcome.reject(error);
  }

  #finish(): void {
    this.#phase = "ended";
    this.#deadline.clear();
    this.#signal.removeEventListener("abort", this.#abort);
    if (this.#source !== undefined) void endSource(this.#source);
    this.#source = undefined;
    this.#wakeSender();
  }
}

/** It may be in the middle of a read; what it says on being ended concerns nobody any more. */
async function endSource(source: AsyncIterator<Uint8Array>): Promise<void> {
  try {
    await source.return?.();
  } catch {
    // The exchange has its outcome already.
  }
}
