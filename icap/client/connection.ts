import type { Socket } from "node:net";
import { IcapError } from "../errors.ts";
import { Deadline } from "./deadline.ts";

/** Who gets a connection's events: the exchange that is on it, or the pool while it is idle. */
export interface ConnectionOwner {
  data(bytes: Buffer): void;
  /** All that was written has been handed to the system. */
  drained(): void;
  /**
   * The connection ended, at most once, and after all that had arrived; `cause` is the system's error if there was one, or an IcapError. Not called
   * after `destroy`.
   */
  gone(cause: Error | undefined): void;
  /** The moment has come that was set by `rest` or `due`. */
  late(): void;
}

/** What a write fails with when the peer has closed: the reading then comes to its end. */
const PEER_CLOSED: ReadonlySet<string> = new Set(["EPIPE", "ECONNRESET"]);

/** Bytes up to which it costs less to copy the pieces of a write together than to hand several to the system. */
const COPIED = 32 * 1024;

/**
 * One socket, connected, in the clear or by TLS. It has one owner at a time, and its listeners are set once, however many exchanges it serves.
 *
 * A server may answer before it has read everything, and close: our next write fails, with the answer still in the system's buffer. A
 * failed write therefore ends nothing. The reading goes on to its end, which such a connection always comes to, and only then is it gone. Linux keeps what
 * has arrived before a reset; where a system drops it, the answer is lost.
 */
export class Connection {
  readonly #socket: Socket;
  readonly closed: Promise<void>;
  readonly #deadline = new Deadline(() => this.#owner?.late());
  #owner: ConnectionOwner | undefined;
  #gone = false;
  #heard = false;
  #unasked = false;
  #writeError: Error | undefined;
  #exchanges = 0;

  constructor(socket: Socket) {
    this.#socket = socket;
    outliveWrites(socket, (error) => {
      this.#writeError = error;
    });
    this.closed = new Promise((resolve) => {
      socket.once("close", () => {
        resolve();
      });
    });
    socket.on("data", (bytes: Buffer) => {
      this.#heard = true;
      this.#owner?.data(bytes);
    });
    socket.on("drain", () => this.#owner?.drained());
    socket.on("error", (error) => this.#end(error));
    socket.on("end", () => this.#end(undefined));
    socket.on("close", () => this.#end(undefined));
  }

  /** Whether an exchange was on it before this one. */
  get reused(): boolean {
    return this.#exchanges > 1;
  }

  get usable(): boolean {
    return !this.#gone;
  }

  /** Bytes came on it that answer nothing: what was taken for an answer, here or on another connection, may have been one to something else. */
  get unasked(): boolean {
    return this.#unasked;
  }

  /** All that was written has been handed to the system. */
  get flushed(): boolean {
    return this.#socket.writableLength === 0;
  }

  /** The owner gets all events from now on; an exchange also sends. */
  serve(owner: ConnectionOwner): void {
    this.#owner = owner;
    this.#exchanges++;
    this.#deadline.set(Infinity);
    this.#socket.resume();
  }

  /** The owner is called by `late` at this moment, which replaces the one that was set; as `performance.now` tells it, Infinity for never. */
  due(until: number): void {
    if (!this.#gone) this.#deadline.set(until);
  }

  /** Kept for later; `owner.late` is called after `idle` ms. */
  rest(owner: ConnectionOwner, idle: number): void {
    this.#owner = owner;
    this.#deadline.set(performance.now() + idle);
    this.#socket.resume();
  }

  /** Sends the pieces in one go; false when more should wait for `drained`. */
  write(pieces: readonly (string | Uint8Array)[]): boolean {
    if (this.#gone) return true;
    const size = pieces.reduce((sum, piece) => sum + piece.length, 0);
    if (size <= COPIED) return this.#socket.write(joined(pieces, size)) || this.flushed;
    this.#socket.cork();
    let ready = true;
    // Strings among them would be encoded one by one on the way.
    for (const piece of pieces) ready = this.#socket.write(typeof piece === "string" ? Buffer.from(piece, "latin1") : piece);
    this.#socket.uncork();
    return ready || this.flushed;
  }

  /** Reads nothing more until `resume`: `data` is not called, and that the connection ended may be heard later. Idempotent. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Ends it at once; the owner hears nothing more. */
  destroy(): void {
    this.#gone = true;
    this.#owner = undefined;
    this.#deadline[Symbol.dispose]();
    this.#socket.destroy();
  }

  /** Ends it at once, because of bytes that answer nothing; the owner hears nothing more. */
  refuse(): void {
    this.#unasked = true;
    this.destroy();
  }

  /** Ends it at once; the owner hears that it is gone, and why. */
  fail(error: Error): void {
    this.#end(error);
  }

  #end(cause: Error | undefined): void {
    if (this.#gone) return;
    const owner = this.#owner;
    this.destroy();
    owner?.gone(this.#reason(cause ?? this.#writeError));
  }

  #reason(cause: Error | undefined): Error | undefined {
    // By TLS 1.3 a server refuses a client's certificate only after the client's handshake is over.
    if (cause === undefined || this.#heard || !systemCode(cause).startsWith("ERR_SSL_")) return cause;
    return new IcapError("connect_failed", `the server refused the TLS handshake: ${systemCode(cause)}`, { cause });
  }
}

/** A write that fails because the peer has closed is told to `failed`; Node.js would destroy the socket, and what is yet to be read with it. */
function outliveWrites(socket: Socket, failed: (error: Error) => void): void {
  const outlive =
    (callback: (error?: Error | null) => void) =>
    (error?: Error | null): void => {
      if (error instanceof Error && PEER_CLOSED.has(systemCode(error))) failed(error);
      else callback(error);
    };
  const write = socket._write.bind(socket);
  const writev = socket._writev?.bind(socket);
  socket._write = (chunk, encoding, callback) => write(chunk, encoding, outlive(callback));
  if (writev !== undefined) socket._writev = (chunks, callback) => writev(chunks, outlive(callback));
}

/** Whether bytes on an idle connection are a server's goodbye (RFC 3507 section 4.3.3, 408): it waited for a request, and none came. */
export function isTimeoutNotice(bytes: Buffer): boolean {
  return /^ICAP\/1\.\d 408 /.test(bytes.toString("latin1", 0, 16));
}

/** An abort's reason as something that may be thrown. */
export function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error("aborted", { cause: reason });
}

/** The system's code for what went wrong; all of them when several addresses were tried. */
export function systemCode(error: unknown): string {
  const errors = error instanceof AggregateError ? (error.errors as unknown[]) : [error];
  const codes = errors.slice(0, 4).map((one) => (one instanceof Error && "code" in one ? String(one.code) : "unknown error"));
  return [...new Set(codes)].join(", ");
}

function joined(pieces: readonly (string | Uint8Array)[], size: number): Buffer {
  const all = Buffer.allocUnsafe(size);
  let at = 0;
  for (const piece of pieces) {
    if (typeof piece === "string") all.write(piece, at, "latin1");
    else all.set(piece, at);
    at += piece.length;
  }
  return all;
}
