/** One HTTP/1.1 answer at a time, out of pieces cut anywhere: as much of RFC 9112 as tells where an answer ends, which is all that a load generator can afford. */
import { ChunkedDecoder } from "../icap/codec/chunked.ts";
import { DEFAULT_LIMITS } from "../icap/codec/limits.ts";

const HEAD_END = "\r\n\r\n";
const MAX_HEAD = 64 * 1024;
const EMPTY = Buffer.alloc(0);

export class AnswerReader {
  /** Of the last answer whose head has come. */
  status = 0;
  /** Whether the server closes the connection after it. */
  closes = false;
  readonly #onBody: (bytes: Buffer) => void;
  #head: Buffer = EMPTY;
  #left = 0;
  #chunks: ChunkedDecoder | undefined;

  /** @param onBody gets views that are good until it returns */
  constructor(onBody: (bytes: Buffer) => void) {
    this.#onBody = onBody;
  }

  /**
   * @returns whether this was the end of the answer; then the next one begins with the next call.
   * @throws Error for what is no answer, has no length, or goes on after its end
   */
  push(bytes: Buffer): boolean {
    return this.#inBody ? this.#pushBody(bytes) : this.#pushHead(bytes);
  }

  /** What comes next is the beginning of an answer, whatever is missing of the one before. */
  reset(): void {
    this.#head = EMPTY;
    this.#left = 0;
    this.#chunks = undefined;
  }

  get #inBody(): boolean {
    return this.#left > 0 || this.#chunks !== undefined;
  }

  #pushHead(bytes: Buffer): boolean {
    // A copy: the buffer that the pieces come in is used again.
    const all = this.#head.length === 0 ? bytes : Buffer.concat([this.#head, bytes]);
    const end = all.indexOf(HEAD_END);
    if (end === -1) {
      if (all.length > MAX_HEAD) throw new Error("the answer's head is too long");
      this.#head = Buffer.from(all);
      return false;
    }
    this.#head = EMPTY;
    this.#readHead(all.toString("latin1", 0, end + 2));
    return this.#pushBody(all.subarray(end + HEAD_END.length));
  }

  #readHead(head: string): void {
    const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(head)?.[1] ?? 0);
    if (status < 200) throw new Error(`no answer: ${JSON.stringify(head.slice(0, 100))}`);
    this.status = status;
    this.closes = /\r\nconnection: *close\r\n/i.test(head);
    const length = /\r\ncontent-length: *(\d+)\r\n/i.exec(head)?.[1];
    if (length !== undefined) this.#left = Number(length);
    else if (/\r\ntransfer-encoding: *chunked\r\n/i.test(head)) this.#chunks = new ChunkedDecoder(DEFAULT_LIMITS, this.#onBody);
    else throw new Error("the answer has no length");
  }

  #pushBody(bytes: Buffer): boolean {
    if (this.#chunks !== undefined) {
      const end = this.#chunks.push(bytes, 0);
      if (this.#chunks.end === undefined) return false;
      this.#chunks = undefined;
      return ended(bytes.length - end);
    }
    const body = bytes.length > this.#left ? bytes.subarray(0, this.#left) : bytes;
    if (body.length > 0) this.#onBody(body);
    this.#left -= body.length;
    return this.#left === 0 && ended(bytes.length - body.length);
  }
}

function ended(more: number): true {
  if (more > 0) throw new Error("there are bytes after the end of the answer");
  return true;
}
