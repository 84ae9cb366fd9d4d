import { type RequestLine, parseRequestLine } from "../codec/head.ts";
import type { IcapLimits } from "../codec/limits.ts";
import { type MessageHead, MessageParser } from "../codec/parser.ts";

/** Reads requests from a connection's bytes when asked to, so that a client is read no faster than its request is worked on. */
export class RequestReader {
  readonly #source: AsyncIterator<Buffer>;
  readonly #parser: MessageParser<RequestLine>;
  readonly #onPreviewRead: () => void;
  #head: MessageHead<RequestLine> | undefined;
  #body: Buffer[] = [];
  #ended = false;
  #preview = false;
  #left: Buffer = Buffer.alloc(0);

  /** `onPreviewRead` is called when more than the preview is wanted: to say 100 Continue. */
  constructor(source: AsyncIterator<Buffer>, limits: IcapLimits, onPreviewRead: () => void) {
    this.#source = source;
    this.#onPreviewRead = onPreviewRead;
    this.#parser = new MessageParser(parseRequestLine, limits, {
      head: (head) => {
        this.#head = head;
        this.#preview = head.headers.get("preview") !== undefined;
      },
      data: (bytes) => this.#body.push(bytes),
      end: (chunked) => {
        this.#ended = true;
        if (chunked?.ieof ?? true) this.#preview = false;
      },
    });
  }

  /** The next request's head; undefined when the client ended the connection before it. @throws MalformedMessage */
  async next(): Promise<MessageHead<RequestLine> | undefined> {
    this.#head = undefined;
    this.#ended = false;
    this.#body = [];
    this.#parser.next();
    while (this.#head === undefined) {
      if (!(await this.#more())) return undefined;
    }
    return this.#head;
  }

  /** The next part of the body; undefined at its end. @throws MalformedMessage, or an Error when the client left in the middle. */
  async read(): Promise<Buffer | undefined> {
    for (;;) {
      const bytes = this.#body.shift();
      if (bytes !== undefined) return bytes;
      if (this.#ended && !this.#preview) return undefined;
      if (this.#ended) {
        this.#preview = false;
        this.#ended = false;
        this.#parser.nextPart();
        this.#onPreviewRead();
      }
      if (!(await this.#more())) throw new Error("the client left in the middle of a request");
    }
  }

  /** Reads on to the end of what the client is sending, and drops it. A preview's end will do: the client waits there. */
  async skip(): Promise<void> {
    this.#preview = false;
    while ((await this.read()) !== undefined);
  }

  async #more(): Promise<boolean> {
    if (this.#left.length === 0) {
      const { value, done } = await this.#source.next();
      if (done === true) return false;
      this.#left = value;
    }
    this.#left = this.#left.subarray(this.#parser.push(this.#left));
    return true;
  }
}
