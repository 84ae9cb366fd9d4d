/** One GET on its way, as undici's dispatchers tell of it: the head of the answer, and its body as it comes. */
import type { IncomingHttpHeaders } from "node:http";
import type { Dispatcher } from "undici";
import { failure } from "./failure.ts";
import type { MediaBody } from "./source.ts";

export interface Head {
  readonly statusCode: number;
  /** By lower-case name; of those that came more than once, all values. */
  readonly headers: IncomingHttpHeaders;
}

type Controller = Dispatcher.DispatchController;

/** Bytes that wait for their reader at most, and one piece of the connection's beyond that; the rest waits in the connection. */
const HIGH_WATER_MARK = 128 * 1024;
/** With so many left, the connection is read again. Each time costs as much as what it holds: of small pieces, it is not to be done for each. */
const LOW_WATER_MARK = 96 * 1024;
/** What a piece takes beside its bytes, about: a peer may send them one by one. */
const PIECE_OVERHEAD = 256;
/** Shorter pieces are copied while they wait, as each may hold all that was read with it, and come out together. */
const SMALL = 4 * 1024;

const DONE: IteratorReturnResult<undefined> = { done: true, value: undefined };

/**
 * The handler of a dispatch, and the body of the answer for the one who reads it, piece by piece. Whatever ends the body early comes out as the error that
 * `failure` makes of it, in place of what has not been read yet. Until somebody reads it, an error waits: it never ends the process.
 */
export class Exchange implements Dispatcher.DispatchHandler, MediaBody, AsyncIterator<Buffer, undefined> {
  readonly #head: Promise<Head>;
  readonly #signal: AbortSignal;
  readonly #answered: (head: Head) => void;
  readonly #refused: (error: unknown) => void;
  readonly #abort = (): void => this.#onAbort();
  #controller: Controller | undefined;
  #hasHead = false;
  #chunks: Buffer[] = [];
  /** Bytes in `#chunks`, and their overhead. */
  #held = 0;
  #ended = false;
  #failure: Error | undefined;
  /** A reader that waits for the next piece. */
  #reader: PromiseWithResolvers<IteratorResult<Buffer, undefined>> | undefined;

  /** @param signal ends it, from the head to the last byte. */
  constructor(signal: AbortSignal) {
    const { promise, resolve, reject } = Promise.withResolvers<Head>();
    this.#head = promise;
    this.#answered = resolve;
    this.#refused = reject;
    this.#signal = signal;
    signal.addEventListener("abort", this.#abort, { once: true });
  }

  /** @throws whatever undici fails with, or the signal's reason. */
  begin(dispatcher: Dispatcher, options: Dispatcher.DispatchOptions): Promise<Head> {
    try {
      dispatcher.dispatch(options, this);
    } catch (error) {
      this.onResponseError(null, error);
    }
    return this.#head;
  }

  onRequestStart(controller: Controller): void {
    this.#controller = controller;
    if (this.#signal.aborted) this.#onAbort();
  }

  onResponseStart(_controller: Controller, statusCode: number, headers: IncomingHttpHeaders): void {
    // Provisional answers.
    if (statusCode < 200) return;
    this.#hasHead = true;
    this.#answered({ statusCode, headers });
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    if (this.#failure !== undefined) return;
    if (this.#reader !== undefined) return this.#hand({ done: false, value: chunk });
    this.#chunks.push(chunk.length < SMALL ? Buffer.from(chunk) : chunk);
    this.#held += chunk.length + PIECE_OVERHEAD;
    if (this.#held >= HIGH_WATER_MARK) controller.pause();
  }

  onResponseEnd(): void {
    this.#ended = true;
    this.#letGo();
    if (this.#reader !== undefined) this.#hand(DONE);
  }

  onResponseError(_controller: Controller | null, error: unknown): void {
    this.#letGo();
    if (this.#hasHead) this.#fail(failure(error, this.#signal));
    else this.#refused(error);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Not to be called again before it has settled. */
  next(): Promise<IteratorResult<Buffer, undefined>> {
    if (this.#chunks.length > 0) {
      const value = this.#take();
      if (this.#held <= LOW_WATER_MARK) this.#controller?.resume();
      return Promise.resolve({ done: false, value });
    }
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#ended) return Promise.resolve(DONE);
    if (this.#reader !== undefined) return Promise.reject(new Error("a body is read piece by piece"));
    this.#reader = Promise.withResolvers();
    return this.#reader.promise;
  }

  return(): Promise<IteratorReturnResult<undefined>> {
    this.destroy();
    return Promise.resolve(DONE);
  }

  destroy(error?: Error): void {
    if (this.#failure !== undefined || (this.#ended && this.#chunks.length === 0)) return;
    const reason = error ?? failure(undefined, this.#signal);
    this.#fail(reason);
    this.#letGo();
    this.#controller?.abort(reason);
  }

  /** Before it has started there is nothing to end; it is ended as soon as it starts. */
  #onAbort(): void {
    this.#controller?.abort(this.#signal.reason as Error);
  }

  /** The first piece, or all small ones before the next that is not. */
  #take(): Buffer {
    const large = this.#chunks.findIndex(({ length }) => length >= SMALL);
    const taken = this.#chunks.splice(0, large === -1 ? this.#chunks.length : Math.max(1, large));
    for (const { length } of taken) this.#held -= length + PIECE_OVERHEAD;
    const [first] = taken;
    return taken.length === 1 && first !== undefined ? first : Buffer.concat(taken);
  }

  #fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#chunks = [];
    this.#reader?.reject(error);
    this.#reader = undefined;
  }

  #hand(result: IteratorResult<Buffer, undefined>): void {
    this.#reader?.resolve(result);
    this.#reader = undefined;
  }

  #letGo(): void {
    this.#signal.removeEventListener("abort", this.#abort);
  }
}
