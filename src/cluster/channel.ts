/**
 * Questions, answers and news between two processes, in both directions over one pipe. Neither side can make the other hold more than a bound, or wait
 * longer than a limit: what can't be sent is lost, what is not answered in time counts as unanswered. What is said in one turn of the event loop goes out
 * together at its end, for each message by itself would have to be written, and would wake the other process.
 */

/** The pipe: `process`, or a worker of `node:cluster`. */
export interface Port {
  /** @param sent called once the message is with the system, or has failed */
  send(message: unknown, sent: (error: Error | null) => void): void;
  /** Called with whatever comes. */
  listen(listener: (message: unknown) => void): void;
}

export interface ChannelHandlers {
  /** What comes back is sent as the answer; a question that it rejects, or that is none, stays unanswered. */
  readonly answer?: (question: unknown) => unknown;
  /** News, of which there is no answer. */
  readonly hear?: (news: unknown) => void;
  /** News were lost here on their way out, and now there is room again. */
  readonly drained?: () => void;
}

/** Questions that wait for their answer. */
const MAX_PENDING = 4096;
/** Bytes on their way into the pipe; one message may go beyond. */
const MAX_UNSENT = 16 * 1024 * 1024;
/** Of one message beside its texts, rounded up. */
const MESSAGE_BYTES = 512;

type Envelope =
  | { readonly ask: number; readonly body: unknown }
  | { readonly answer: number; readonly body: unknown }
  | { readonly tell: unknown };

/** A question without its answer. */
interface Pending {
  /** It has gone out: its time begins. */
  readonly sent: () => void;
  readonly settle: (answer?: unknown) => void;
}

export class Channel {
  readonly #port: Port;
  readonly #handlers: ChannelHandlers;
  readonly #pending = new Map<number, Pending>();
  #asked = 0;
  /** What goes out at the end of this turn, and its bytes. */
  #outgoing: Envelope[] = [];
  #outgoingBytes = 0;
  /** Bytes that are not with the system yet. */
  #unsent = 0;
  #lost = false;
  #flushed: (() => void) | undefined;

  constructor(port: Port, handlers: ChannelHandlers = {}) {
    this.#port = port;
    this.#handlers = handlers;
    port.listen((message) => this.#receive(message));
  }

  /** Never rejects. Undefined: no answer within so many milliseconds from when it was sent, or too many questions wait for theirs. */
  ask(question: unknown, limit: number): Promise<unknown> {
    if (this.#pending.size >= MAX_PENDING) return Promise.resolve(undefined);
    this.#asked += 1;
    const id = this.#asked;
    const { promise, resolve } = Promise.withResolvers<unknown>();
    let timer: NodeJS.Timeout | undefined;
    const settle = (answer?: unknown): void => {
      clearTimeout(timer);
      if (this.#pending.delete(id)) resolve(answer);
    };
    // What has come in while this process was busy is looked at before it counts as late.
    const sent = (): void => void (timer = setTimeout(() => setImmediate(settle), limit));
    this.#pending.set(id, { sent, settle });
    if (!this.#send({ ask: id, body: question }, question)) settle();
    return promise;
  }

  /** Never throws. False: it was lost, for too much is on its way already. */
  tell(news: unknown): boolean {
    const sent = this.#send({ tell: news }, news);
    this.#lost ||= !sent;
    return sent;
  }

  /** Resolves when all that was said so far is with the system, or after so many milliseconds. */
  async flush(limit: number): Promise<void> {
    if (this.#unsent === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#flushed = resolve;
    const timer = setTimeout(resolve, limit);
    await promise;
    clearTimeout(timer);
  }

  #send(envelope: Envelope, body: unknown): boolean {
    if (this.#unsent > MAX_UNSENT) return false;
    const bytes = bytesOf(body);
    this.#unsent += bytes;
    this.#outgoingBytes += bytes;
    if (this.#outgoing.push(envelope) === 1) setImmediate(() => this.#post());
    return true;
  }

  #post(): void {
    const envelopes = this.#outgoing;
    const bytes = this.#outgoingBytes;
    this.#outgoing = [];
    this.#outgoingBytes = 0;
    const pending = envelopes.flatMap((envelope) => ("ask" in envelope && this.#pending.get(envelope.ask)) || []);
    try {
      this.#port.send(envelopes, () => this.#sent(bytes));
      for (const { sent } of pending) sent();
    } catch {
      this.#sent(bytes);
      this.#lost ||= envelopes.some((envelope) => "tell" in envelope);
      for (const { settle } of pending) settle();
    }
  }

  #sent(bytes: number): void {
    this.#unsent -= bytes;
    if (this.#unsent === 0) this.#flushed?.();
    if (!this.#lost || this.#unsent > MAX_UNSENT / 2) return;
    this.#lost = false;
    this.#handlers.drained?.();
  }

  #receive(messages: unknown): void {
    if (Array.isArray(messages)) for (const message of messages as unknown[]) this.#read(message);
  }

  #read(message: unknown): void {
    if (typeof message !== "object" || message === null) return;
    if ("tell" in message) this.#handlers.hear?.(message.tell);
    else if (!("body" in message)) return;
    else if ("ask" in message) void this.#reply(message.ask, message.body);
    else if ("answer" in message && typeof message.answer === "number") this.#pending.get(message.answer)?.settle(message.body);
  }

  async #reply(id: unknown, question: unknown): Promise<void> {
    if (typeof id !== "number") return;
    try {
      const body = await this.#handlers.answer?.(question);
      if (body !== undefined) this.#send({ answer: id, body }, body);
    } catch {
      // Who asked goes on without an answer.
    }
  }
}

/** Of what a message is made of, the texts are what can be long. */
function bytesOf(body: unknown): number {
  if (typeof body !== "object" || body === null) return MESSAGE_BYTES;
  return Object.values(body).reduce<number>((sum, part) => sum + (typeof part === "string" ? 2 * part.length : 0), MESSAGE_BYTES);
}
