import { BlockReader } from "./block-reader.ts";
import { ChunkedDecoder, type ChunkedEnd } from "./chunked.ts";
import { type BodySection, type Encapsulated, parseEncapsulated } from "./encapsulated.ts";
import { type HttpHead, type HttpResponseHead, parseHttpHead, parseHttpResponseHead, splitHead } from "./head.ts";
import { HeaderBlock } from "./headers.ts";
import type { IcapLimits } from "./limits.ts";
import { MalformedMessage } from "./malformed.ts";

/** An ICAP head and the HTTP heads encapsulated in the message. */
export interface MessageHead<Start> {
  readonly start: Start;
  readonly headers: HeaderBlock;
  readonly httpRequest: HttpHead | undefined;
  readonly httpResponse: HttpResponseHead | undefined;
  /** Undefined when there was no Encapsulated header; nothing then follows the head. */
  readonly body: BodySection | undefined;
}

export interface MessageSink<Start> {
  /** The ICAP head has come, and nothing of what it announces is read yet: the message may still turn out to be malformed, or never be whole. */
  icapHead?(start: Start, headers: HeaderBlock): void;
  /** All heads have come. */
  head(head: MessageHead<Start>): void;
  /** A part of the body: a view into what was pushed. */
  data(bytes: Buffer): void;
  /** The message, or its preview, is complete. `chunked` is undefined when it has no body. */
  end(chunked: ChunkedEnd | undefined): void;
}

/**
 * Reads ICAP messages (RFC 3507 section 4) from bytes in any split, one after the other; it pushes what it finds into a sink. It keeps
 * heads only, within the limits. After a MalformedMessage it must not be used again.
 */
export class MessageParser<Start> {
  readonly #parseStart: (line: string) => Start;
  readonly #limits: IcapLimits;
  readonly #sink: MessageSink<Start>;
  readonly #block: BlockReader;
  #state: "head" | "encapsulated" | "body" | "done" = "head";
  #start: { start: Start; headers: HeaderBlock; encapsulated: Encapsulated } | undefined;
  #heads: Buffer | undefined;
  #headsLength = 0;
  #chunked: ChunkedDecoder | undefined;

  /** `parseStart` is `parseStatusLine` or `parseRequestLine`. */
  constructor(parseStart: (line: string) => Start, limits: IcapLimits, sink: MessageSink<Start>) {
    this.#parseStart = parseStart;
    this.#limits = limits;
    this.#sink = sink;
    this.#block = new BlockReader(limits);
  }

  /** The message is complete; `push` takes nothing until `next` or `nextPart`. */
  get done(): boolean {
    return this.#state === "done";
  }

  /** Not one byte of a message has come. */
  get atStart(): boolean {
    return this.#state === "head" && this.#block.empty;
  }

  /** Reads from `from` on; gives the index of the first byte after the message. @throws MalformedMessage, and whatever the sink throws */
  push(bytes: Buffer, from = 0): number {
    let at = from;
    while (at < bytes.length && this.#state !== "done") {
      if (this.#state === "head") at = this.#readHead(bytes, at);
      else if (this.#state === "encapsulated") at = this.#readEncapsulated(bytes, at);
      else at = this.#readBody(bytes, at);
    }
    return at;
  }

  /** Another message comes. */
  next(): void {
    this.#state = "head";
    this.#start = undefined;
    this.#heads = undefined;
    this.#headsLength = 0;
    this.#chunked = undefined;
  }

  /** The rest of the body comes after its preview. */
  nextPart(): void {
    this.#beginBody();
  }

  #readHead(bytes: Buffer, from: number): number {
    const end = this.#block.push(bytes, from);
    if (end === -1) return bytes.length;
    const lines = splitHead(this.#block.take());
    const start = this.#parseStart(lines[0] ?? "");
    const headers = HeaderBlock.parse(lines, 1, this.#limits);
    this.#sink.icapHead?.(start, headers);
    const fields = headers.all("encapsulated");
    if (fields.length > 1) throw new MalformedMessage("protocol", "more than one Encapsulated header");
    if (fields[0] === undefined) {
      this.#state = "done";
      this.#sink.head({ start, headers, httpRequest: undefined, httpResponse: undefined, body: undefined });
      this.#sink.end(undefined);
      return end;
    }
    const encapsulated = parseEncapsulated(fields[0], this.#limits);
    this.#start = { start, headers, encapsulated };
    if (encapsulated.headBytes === 0) this.#finishHeads(Buffer.alloc(0));
    else this.#state = "encapsulated";
    return end;
  }

  #readEncapsulated(bytes: Buffer, from: number): number {
    const wanted = this.#start?.encapsulated.headBytes ?? 0;
    const to = Math.min(bytes.length, from + wanted - this.#headsLength);
    if (this.#headsLength === 0 && to - from === wanted) {
      this.#finishHeads(bytes.subarray(from, to));
      return to;
    }
    this.#heads ??= Buffer.allocUnsafe(wanted);
    bytes.copy(this.#heads, this.#headsLength, from, to);
    this.#headsLength += to - from;
    if (this.#headsLength === wanted) this.#finishHeads(this.#heads);
    return to;
  }

  #finishHeads(block: Buffer): void {
    if (this.#start === undefined) return;
    const { start, headers, encapsulated } = this.#start;
    let httpRequest: HttpHead | undefined;
    let httpResponse: HttpResponseHead | undefined;
    let at = 0;
    for (const { section, length } of encapsulated.heads) {
      const part = block.subarray(at, at + length);
      if (section === "req-hdr") httpRequest = parseHttpHead(part, this.#limits);
      else httpResponse = parseHttpResponseHead(part, this.#limits);
      at += length;
    }
    this.#heads = undefined;
    const body = encapsulated.body;
    if (body === "null-body") this.#state = "done";
    else this.#beginBody();
    this.#sink.head({ start, headers, httpRequest, httpResponse, body });
    if (body === "null-body") this.#sink.end(undefined);
  }

  #beginBody(): void {
    this.#chunked = new ChunkedDecoder(this.#limits, (bytes) => {
      this.#sink.data(bytes);
    });
    this.#state = "body";
  }

  #readBody(bytes: Buffer, from: number): number {
    if (this.#chunked === undefined) return from;
    const to = this.#chunked.push(bytes, from);
    if (this.#chunked.end !== undefined) {
      this.#state = "done";
      this.#sink.end(this.#chunked.end);
    }
    return to;
  }
}
