import type { ChunkedEnd } from "../codec/chunked.ts";
import { type StatusLine, parseStatusLine } from "../codec/head.ts";
import type { IcapLimits } from "../codec/limits.ts";
import type { HeaderBlock } from "../codec/headers.ts";
import { MalformedMessage } from "../codec/malformed.ts";
import { type MessageHead, MessageParser, type MessageSink } from "../codec/parser.ts";

/** Reads what a server answers: any 100 first, then one final answer, whose body goes to `onBody`, in views into what was pushed. */
export class AnswerReader implements MessageSink<StatusLine> {
  readonly #parser: MessageParser<StatusLine>;
  readonly #onBody: (bytes: Buffer) => void;
  #icapHead: MessageHead<StatusLine> | undefined;
  #head: MessageHead<StatusLine> | undefined;
  #end: { readonly chunked: ChunkedEnd | undefined } | undefined;
  #continued = false;
  #heard = false;

  constructor(limits: IcapLimits, onBody: (bytes: Buffer) => void) {
    this.#onBody = onBody;
    this.#parser = new MessageParser(parseStatusLine, limits, this);
  }

  /** At least one byte has come. */
  get heard(): boolean {
    return this.#heard;
  }

  /** The next byte is the first of an answer. */
  get atStart(): boolean {
    return this.#parser.atStart;
  }

  /** Of the final answer, encapsulated heads included. */
  get answer(): MessageHead<StatusLine> | undefined {
    return this.#head;
  }

  /** As much of that as there is, for an answer that is given up: its ICAP head may stand alone. */
  get heads(): MessageHead<StatusLine> | undefined {
    return this.#head ?? this.#icapHead;
  }

  /** Set once the final answer is complete. */
  get ending(): { readonly chunked: ChunkedEnd | undefined } | undefined {
    return this.#end;
  }

  /**
   * Reads from `from` on, up to the end of one message; gives the index after what was read.
   * @throws MalformedMessage
   */
  push(bytes: Buffer, from: number): number {
    this.#heard = true;
    if (this.#end !== undefined) throw new MalformedMessage("protocol", "bytes came after the end of the answer");
    return this.#parser.push(bytes, from);
  }

  /** Whether a 100 has come since this was last asked. */
  takeContinue(): boolean {
    if (!this.#continued) return false;
    this.#continued = false;
    this.#parser.next();
    return true;
  }

  // What the parser finds.

  icapHead(start: StatusLine, headers: HeaderBlock): void {
    if (start.status >= 200) this.#icapHead = { start, headers, httpRequest: undefined, httpResponse: undefined, body: undefined };
  }

  data(bytes: Buffer): void {
    this.#onBody(bytes);
  }

  end(chunked: ChunkedEnd | undefined): void {
    if (this.#head !== undefined) this.#end = { chunked };
  }

  head(head: MessageHead<StatusLine>): void {
    const { status } = head.start;
    if (status >= 200) {
      this.#head = head;
      return;
    }
    if (status !== 100 || (head.body !== undefined && head.body !== "null-body")) {
      throw new MalformedMessage("protocol", `an ICAP ${status} where an answer should be`);
    }
    this.#continued = true;
  }
}
