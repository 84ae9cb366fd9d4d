/** Media on its way to the client, through Node's own stream: a web stream would cost a quarter of the speed. */
import type { ServerResponse } from "node:http";

export interface ReaderLimits {
  /** Milliseconds in which a reader has to take a byte. */
  readonly idle: number;
  /** Milliseconds that a reader may keep us waiting in all, whatever the size; on top of that, as long as the bytes take at `rate`. */
  readonly patience: number;
  /** Bytes a second. Slower readers would hold spool and slots for hours. */
  readonly rate: number;
}

const LIMITS: ReaderLimits = { idle: 60_000, patience: 120_000, rate: 32 * 1024 };

/** How a body went. */
export interface Delivery {
  readonly sent: number;
  /** Whether everything was handed to the network. */
  readonly complete: boolean;
  readonly error?: unknown;
}

/**
 * Writes head and body. Never throws: the status is out, and the text of an error would be taken for media. Whatever goes wrong, the
 * connection is destroyed, and the client sees fewer bytes than were announced. Resolves at once when the client has gone already.
 */
export async function sendMedia(
  outgoing: ServerResponse,
  headers: Readonly<Record<string, string>>,
  { body, size }: { readonly body: AsyncIterable<Buffer>; readonly size: number },
  limits = LIMITS,
): Promise<Delivery> {
  let sent = 0;
  const reader = new Reader(outgoing, limits, size);
  try {
    if (reader.gone) return { sent, complete: false };
    outgoing.writeHead(200, headers);
    for await (const chunk of body) {
      if (reader.gone) break;
      sent += chunk.length;
      if (!outgoing.write(chunk)) await reader.next("drain");
    }
    if (!reader.gone) {
      outgoing.end();
      await reader.next("finish");
    }
    return { sent, complete: outgoing.writableFinished };
  } catch (error) {
    outgoing.destroy();
    return { sent, complete: false, error };
  }
}

/** The one at the other end. Only the time that it keeps us waiting counts against it, not the homeserver's. */
class Reader {
  readonly #outgoing: ServerResponse;
  readonly #idle: number;
  #patience: number;

  constructor(outgoing: ServerResponse, { idle, patience, rate }: ReaderLimits, size: number) {
    this.#outgoing = outgoing;
    this.#idle = idle;
    this.#patience = patience + (size / rate) * 1000;
    outgoing.on("timeout", () => outgoing.destroy());
  }

  get gone(): boolean {
    return this.#outgoing.destroyed || this.#outgoing.closed;
  }

  /** Waits for the event, or for the end of the connection, which comes when the reader is too slow. */
  async next(event: "drain" | "finish"): Promise<void> {
    if (this.gone) return;
    const outgoing = this.#outgoing;
    const started = performance.now();
    const tooSlow = setTimeout(() => outgoing.destroy(), this.#patience);
    outgoing.setTimeout(this.#idle);
    await new Promise<void>((resolve) => {
      const done = (): void => {
        outgoing.off(event, done).off("close", done);
        resolve();
      };
      outgoing.on(event, done).on("close", done);
    });
    outgoing.setTimeout(0);
    clearTimeout(tooSlow);
    this.#patience = Math.max(1, this.#patience - (performance.now() - started));
  }
}
