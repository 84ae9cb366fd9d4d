import { type Socket, connect } from "node:net";
import { IcapError } from "../errors.ts";
import type { Target } from "./target.ts";

/** Who gets a connection's events: the exchange that is on it, or the pool while it is idle. */
export interface ConnectionOwner {
  data(bytes: Buffer): void;
  /** All that was written has been handed to the system. */
  drained(): void;
  /** The connection ended, at most once; `cause` is the system's error if there was one. Not called after `destroy`. */
  gone(cause: Error | undefined): void;
  /** Nothing came or went for as long as `watchIdle` said. */
  idled(): void;
}

/** One socket. It has one owner at a time, and its listeners are set once, however many exchanges it serves. */
export class Connection {
  readonly #socket: Socket;
  readonly closed: Promise<void>;
  #owner: ConnectionOwner | undefined;
  #gone = false;
  #exchanges = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => {
      socket.once("close", () => {
        resolve();
      });
    });
    socket.on("data", (bytes: Buffer) => this.#owner?.data(bytes));
    socket.on("drain", () => this.#owner?.drained());
    socket.on("timeout", () => this.#owner?.idled());
    socket.on("error", (error) => this.#end(error));
    socket.on("end", () => this.#end(undefined));
    socket.on("close", () => this.#end(undefined));
  }

  /**
   * Connects, trying every address that the name has.
   * @throws IcapError `connect_failed`, `timeout`; the signal's reason.
   */
  static open(target: Target, timeout: number, signal: AbortSignal): Promise<Connection> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(asError(signal.reason));
        return;
      }
      const socket = connect({
        host: target.host,
        port: target.port,
        noDelay: true,
        autoSelectFamily: true,
        // Of one address that does not answer, so that the next gets its turn within the time for all.
        autoSelectFamilyAttemptTimeout: Math.max(10, Math.min(1000, Math.ceil(timeout / 3))),
      });
      const settle = (): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", abort);
        socket.off("error", fail);
        socket.off("connect", succeed);
      };
      const abandon = (error: Error): void => {
        settle();
        socket.on("error", ignore);
        socket.destroy();
        reject(error);
      };
      const fail = (error: Error): void => {
        abandon(new IcapError("connect_failed", `cannot connect to ${target.authority}: ${systemCode(error)}`, { cause: error }));
      };
      const abort = (): void => abandon(asError(signal.reason));
      const succeed = (): void => {
        settle();
        resolve(new Connection(socket));
      };
      const timer = setTimeout(() => {
        abandon(new IcapError("timeout", `cannot connect to ${target.authority} within ${timeout} ms`));
      }, timeout);
      signal.addEventListener("abort", abort, { once: true });
      socket.once("error", fail);
      socket.once("connect", succeed);
    });
  }

  /** Whether an exchange was on it before this one. */
  get reused(): boolean {
    return this.#exchanges > 1;
  }

  get usable(): boolean {
    return !this.#gone;
  }

  /** All that was written has been handed to the system. */
  get flushed(): boolean {
    return this.#socket.writableLength === 0;
  }

  /** The owner gets all events from now on; an exchange also sends. */
  serve(owner: ConnectionOwner): void {
    this.#owner = owner;
    this.#exchanges++;
    this.#socket.setTimeout(0);
  }

  /** Kept for later; `owner.idled` is called after `idle` ms. */
  rest(owner: ConnectionOwner, idle: number): void {
    this.#owner = owner;
    this.#socket.setTimeout(idle);
  }

  /** Sends the pieces in one go; false when more should wait for `drained`. */
  write(pieces: readonly (string | Uint8Array)[]): boolean {
    if (this.#gone) return true;
    this.#socket.cork();
    let ready = true;
    for (const piece of pieces) ready = typeof piece === "string" ? this.#socket.write(piece, "latin1") : this.#socket.write(piece);
    this.#socket.uncork();
    return ready || this.flushed;
  }

  /** Ends it at once; the owner hears nothing more. */
  destroy(): void {
    this.#gone = true;
    this.#owner = undefined;
    this.#socket.destroy();
  }

  /** Ends it at once; the owner hears that it is gone, and why. */
  fail(error: Error): void {
    this.#end(error);
  }

  #end(cause: Error | undefined): void {
    if (this.#gone) return;
    const owner = this.#owner;
    this.destroy();
    owner?.gone(cause);
  }
}

/** An abort's reason as something that may be thrown. */
export function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error("aborted", { cause: reason });
}

/** The system's code for what went wrong; all of them when several addresses were tried. */
export function systemCode(error: Error): string {
  const errors = error instanceof AggregateError ? (error.errors as unknown[]) : [error];
  const codes = errors.slice(0, 4).map((one) => (one instanceof Error && "code" in one ? String(one.code) : "unknown error"));
  return [...new Set(codes)].join(", ");
}

function ignore(): void {
  // A socket that was given up may still report why; nobody is left to tell.
}
