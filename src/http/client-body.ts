/** Request bodies: asked for when they are wanted, and read at a pace that has an end. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { setImmediate } from "node:timers/promises";
import { GatewayError } from "../errors.ts";

export interface SenderLimits {
  /** Milliseconds in which a sender has to send a byte. */
  readonly idle: number;
  /** Milliseconds that a sender may keep us waiting in all; on top of that, as long as the bytes that have come take at `rate`. */
  readonly patience: number;
  /** Bytes a second. */
  readonly rate: number;
}

export const MEDIA_PACE: SenderLimits = { idle: 60_000, patience: 120_000, rate: 32 * 1024 };
export const JSON_PACE: SenderLimits = { idle: 20_000, patience: 60_000, rate: 32 * 1024 };

/** A request and the answer to it, as Node has them. */
export interface Exchange {
  readonly incoming: IncomingMessage;
  readonly outgoing: ServerResponse;
}

/** Bytes that a request's body has; undefined when it comes in chunks, without being announced. */
export function announcedSize({ headers }: IncomingMessage): number | undefined {
  const { "content-length": length, "transfer-encoding": coding } = headers;
  if (coding !== undefined) return undefined;
  return length === undefined ? 0 : Number(length);
}

const NEVER = new AbortController().signal;

/** RFC 9110, section 10.1.1. */
const CONTINUE = /(?:^|\W)100-continue(?:$|\W)/i;

/**
 * The body, to be read once. Until it is read, a client that expects to be told to go on is not told to. Leaving off is fine at any moment: the connection stays
 * for the answer.
 * @throws GatewayError `client_gone`, `upload_too_slow`; the signal's reason.
 */
export async function* bodyOf(
  { incoming, outgoing }: Exchange,
  { idle, patience, rate }: SenderLimits,
  signal: AbortSignal = NEVER,
): AsyncGenerator<Buffer> {
  signal.throwIfAborted();
  // Whoever cuts the connection makes an error that must find somebody.
  incoming.on("error", ignore);
  const { expect } = incoming.headers;
  if (expect !== undefined && CONTINUE.test(expect) && !outgoing.headersSent) outgoing.writeContinue();
  // By then what came with the head is here, which for most JSON is all of it: nobody has to be waited for.
  await setImmediate();
  signal.throwIfAborted();
  let allowed = patience;
  for (;;) {
    const chunk = incoming.read() as Buffer | null;
    if (chunk !== null) {
      allowed += (chunk.length / rate) * 1000;
      yield chunk;
      signal.throwIfAborted();
    } else if (incoming.readableEnded || (incoming.complete && incoming.readableLength === 0)) {
      return;
    } else if (incoming.destroyed) {
      throw new GatewayError("client_gone", { detail: "the body was cut short" });
    } else {
      // Only the time that the sender keeps us waiting counts against it.
      const started = performance.now();
      await news(incoming, Math.min(idle, allowed), signal);
      allowed -= performance.now() - started;
    }
  }
}

/** Resolves when there is more to read, or nothing more will come. */
async function news(incoming: IncomingMessage, milliseconds: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const tooSlow = setTimeout(() => reject(new GatewayError("upload_too_slow")), Math.max(1, milliseconds));
  const abort = (): void => reject(signal.reason as Error);
  const ready = (): void => resolve();
  incoming.on("readable", ready).on("end", ready).on("close", ready).on("error", ready);
  signal.addEventListener("abort", abort, { once: true });
  try {
    await promise;
  } finally {
    clearTimeout(tooSlow);
    signal.removeEventListener("abort", abort);
    incoming.off("readable", ready).off("end", ready).off("close", ready).off("error", ready);
  }
}

function ignore(): void {}

/** Milliseconds that a client may go on sending what nobody reads any more. */
const LINGER = 10_000;

/**
 * Once the answer is out, takes what the client still sends, for a while: whoever closes a connection on which bytes are on their way takes the answer back
 * with it. RFC 9112, section 9.6.
 */
export function lingerAfter({ incoming, outgoing }: Exchange): void {
  // So it is from the start when no body was announced.
  if (incoming.readableEnded) return;
  outgoing.once("finish", () => {
    if (incoming.readableEnded || incoming.destroyed) return;
    incoming.resume();
    if (incoming.complete) return;
    const { socket } = incoming;
    const timer = setTimeout(() => socket.destroySoon(), LINGER).unref();
    const over = (): void => clearTimeout(timer);
    incoming.once("end", over).once("close", over).on("error", ignore);
  });
}
