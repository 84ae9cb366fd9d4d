/** One connection of the load generator: a request after another, each answer checked to its last byte. */
import { type Socket, connect } from "node:net";
import { AnswerReader } from "./answer-reader.ts";
import type { PreparedRequest } from "./load-requests.ts";

/** Of an answer that came whole and is the right one: milliseconds, and bytes. */
export interface Answered {
  readonly latency: number;
  readonly firstByte: number;
  readonly bytes: number;
}

/** All connections read into this one: what comes is looked at before the next read. A buffer for each read would cost more than all the rest. */
const buffer = Buffer.allocUnsafe(256 * 1024);
/** Bytes of a verdict, or of an error's text, that are looked at. */
const MAX_TEXT = 4096;
/** Milliseconds without a byte. */
const SILENCE = 600_000;
const EMPTY = Buffer.alloc(0);

export class LoadConnection {
  readonly #target: URL;
  readonly #size: number;
  readonly #reader = new AnswerReader((bytes) => this.#take(bytes));
  #socket: Socket | undefined;
  #request: PreparedRequest = { bytes: "", tail: undefined };
  #started = 0;
  #firstByte = 0;
  #received = 0;
  /** The end of media; the beginning of anything else. */
  #kept: Buffer = EMPTY;
  #done: ((error: Error | undefined) => void) | undefined;

  /** @param size bytes that media is to have */
  constructor(target: URL, size: number) {
    this.#target = target;
    this.#size = size;
  }

  /** Resolves when it is connected. */
  connect(): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const { hostname: host, port } = this.#target;
    const socket: Socket = connect({
      host,
      port: Number(port || 80),
      noDelay: true,
      onread: { buffer, callback: (length) => this.#read(socket, length) },
    });
    this.#socket = socket;
    socket.setTimeout(SILENCE, () => socket.destroy(new Error(`nothing came for ${SILENCE / 1000} s`)));
    socket.once("connect", resolve);
    socket.on("error", (error) => {
      reject(error);
      this.#fail(socket, error);
    });
    socket.once("close", () => {
      reject(new Error(`no connection to ${host}:${port}`));
      this.#fail(socket, new Error("the connection was closed"));
      if (this.#socket === socket) this.#socket = undefined;
    });
    return promise;
  }

  /** @throws Error for any other answer than the right one */
  async ask(request: PreparedRequest): Promise<Answered> {
    if (this.#socket === undefined || this.#socket.destroyed) await this.connect();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#request = request;
    this.#received = 0;
    this.#kept = EMPTY;
    this.#firstByte = 0;
    this.#done = (error) => {
      this.#done = undefined;
      if (error === undefined) resolve();
      else reject(error);
    };
    this.#started = performance.now();
    this.#send(request);
    await promise;
    const latency = performance.now() - this.#started;
    const wrong = this.#problem();
    if (wrong !== undefined) throw new Error(wrong);
    return { latency, firstByte: this.#firstByte - this.#started, bytes: request.uri === undefined ? this.#received : this.#size };
  }

  #send({ bytes, media = [] }: PreparedRequest): void {
    const socket = this.#socket;
    // The head and the first part leave together.
    socket?.cork();
    socket?.write(bytes, "latin1");
    for (const part of media) socket?.write(part);
    socket?.uncork();
  }

  close(): void {
    this.#done = undefined;
    this.#socket?.destroy();
  }

  #read(socket: Socket, length: number): boolean {
    try {
      if (!this.#reader.push(buffer.subarray(0, length))) return true;
      if (this.#reader.closes) this.#drop(socket);
      this.#done?.(undefined);
    } catch (error) {
      this.#fail(socket, error instanceof Error ? error : new Error(String(error)));
    }
    return true;
  }

  #take(bytes: Buffer): void {
    if (this.#firstByte === 0) this.#firstByte = performance.now();
    const { tail } = this.#request;
    const media = tail !== undefined && this.#reader.status === 200;
    const from = media ? this.#size - tail.length - this.#received : 0;
    if (from < bytes.length && this.#kept.length < MAX_TEXT) this.#kept = Buffer.concat([this.#kept, bytes.subarray(Math.max(0, from))]);
    this.#received += bytes.length;
  }

  /** What is wrong with the answer that came. */
  #problem(): string | undefined {
    const { tail, uri } = this.#request;
    if (this.#reader.status !== 200) return `${this.#reader.status} ${this.#kept.toString("latin1", 0, 200)}`;
    if (uri !== undefined)
      return fieldOf(this.#kept, "content_uri") === uri ? undefined : `not ${uri}: ${this.#kept.toString("latin1", 0, 200)}`;
    if (tail === undefined) return isClean(this.#kept) ? undefined : `no clean verdict: ${this.#kept.toString("latin1", 0, 200)}`;
    if (this.#received !== this.#size) return `${this.#received} bytes instead of ${this.#size}`;
    return this.#kept.equals(tail) ? undefined : "other bytes than those of the media";
  }

  #fail(socket: Socket, error: Error): void {
    if (this.#socket !== socket) return;
    this.#drop(socket);
    this.#done?.(error);
  }

  #drop(socket: Socket): void {
    this.#reader.reset();
    socket.destroy();
    if (this.#socket === socket) this.#socket = undefined;
  }
}

function isClean(text: Buffer): boolean {
  return fieldOf(text, "clean") === true;
}

/** Of a JSON object; undefined where it is none. */
function fieldOf(text: Buffer, name: string): unknown {
  try {
    return (JSON.parse(text.toString()) as Readonly<Record<string, unknown>> | null)?.[name];
  } catch {
    return undefined;
  }
}
