/** Media on its way to the client, through Node's own stream, which tells when the reader keeps it waiting. */
import type { ServerResponse } from "node:http";
import { COMMON_HEADERS } from "./common-headers.ts";

export interface ReaderLimits {
  /** Milliseconds in which a reader has to take a byte. */
  readonly idle: number;
  /** Milliseconds that a reader may keep us waiting in all, whatever the size; on top of that, as long as the bytes take at `rate`. */
  readonly patience: number;
  /** Bytes a second. Slower readers would hold spool and slots for hours. */
  readonly rate: number;
}

const LIMITS: ReaderLimits = { idle: 60_000, patience: 120_000, rate: 32 * 1024 };

/** Bytes of media that is best written as a whole. */
const SMALL = 1024 * 1024;

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
    outgoing.writeHead(200, { ...COMMON_HEADERS, ...headers });
    for await (const chunk of body) {
      if (reader.gone) break;
      sent += chunk.length;
      if (sent > size) throw new RangeError("there is more media than was announced");
      if (sent === size) end(outgoing, chunk);
      else if (!(sent === chunk.length && size > SMALL ? writeAtOnce(outgoing, chunk) : outgoing.write(chunk)))
        await reader.next(hasDrained);
    }
    if (!reader.gone) {
      if (sent < size) throw new RangeError("there is less media than was announced");
      end(outgoing);
      await reader.next(hasFinished);
    }
    return { sent, complete: hasFinished(outgoing) };
  } catch (error) {
    outgoing.destroy();
    return { sent, complete: false, error };
  }
}

/** Node writes at the end of its turn, which may last until the body has nothing more at hand: some milliseconds, for which a first byte need not wait. */
function writeAtOnce(outgoing: ServerResponse, chunk: Buffer): boolean {
  outgoing.cork();
  const goesOn = outgoing.write(chunk);
  outgoing.uncork();
  return goesOn;
}

/** With the last bytes, so that they are written as one. */
function end(outgoing: ServerResponse, chunk?: Buffer): void {
  if (!outgoing.writableEnded) outgoing.end(chunk);
}

function hasDrained(outgoing: ServerResponse): boolean {
  return !outgoing.writableNeedDrain;
}

/** Whether the system has all of it: most often at once, and before the event. */
function hasFinished(outgoing: ServerResponse): boolean {
  const { writableFinished, writableEnded, writableLength, destroyed } = outgoing;
  return writableFinished || (writableEnded && writableLength === 0 && !destroyed);
}

/**
 * The one at the other end. Only the time that it keeps us waiting counts against it, not the homeserver's; so until it does, nothing is set up
 * against it.
 */
class Reader {
  readonly #outgoing: ServerResponse;
  readonly #idle: number;
  #patience: number;
  /** While it is waited for. */
  #wake: (() => void) | undefined;
  #watched = false;

  constructor(outgoing: ServerResponse, { idle, patience, rate }: ReaderLimits, size: number) {
    this.#outgoing = outgoing;
    this.#idle = idle;
    this.#patience = patience + (size / rate) * 1000;
  }

  get gone(): boolean {
    return this.#outgoing.destroyed || this.#outgoing.closed;
  }

  /** Waits for what is to come, or for the end of the connection, which comes when the reader is too slow. */
  async next(hasCome: (outgoing: ServerResponse) => boolean): Promise<void> {
    const outgoing = this.#outgoing;
    if (this.gone || hasCome(outgoing)) return;
    this.#watch();
    const started = performance.now();
    const tooSlow = setTimeout(() => outgoing.destroy(), this.#patience);
    // The socket's own limit, as it knows how much the system took. It is not taken off: Node sets another at the end of the answer.
    outgoing.setTimeout(this.#idle);
    do await new Promise<void>((resolve) => (this.#wake = resolve));
    while (!this.gone && !hasCome(outgoing));
    this.#wake = undefined;
    clearTimeout(tooSlow);
    this.#patience = Math.max(1, this.#patience - (performance.now() - started));
  }

  /** Once for a body, however often it is waited for. */
  #watch(): void {
    if (this.#watched) return;
    this.#watched = true;
    const outgoing = this.#outgoing;
    const wake = (): void => this.#wake?.();
    outgoing.on("drain", wake).on("finish", wake).on("close", wake);
    outgoing.on("timeout", () => {
      // Else it was the homeserver that nothing came from.
      if (this.#wake !== undefined) outgoing.destroy();
    });
  }
}
