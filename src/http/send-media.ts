/** Media on its way to the client, through Node's own stream: a web stream would cost a quarter of the speed. */
import type { ServerResponse } from "node:http";

export interface ReaderLimits {
  /** Milliseconds in which a reader has to take a byte. */
  readonly idle: number;
  /** Milliseconds that any media may take, whatever its size; on top of that, as long as its bytes take at `rate`. */
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
  const tooSlow = setTimeout(() => outgoing.destroy(), limits.patience + (size / limits.rate) * 1000);
  try {
    if (isGone(outgoing)) return { sent, complete: false };
    outgoing.setTimeout(limits.idle, () => outgoing.destroy());
    outgoing.writeHead(200, headers);
    for await (const chunk of body) {
      if (isGone(outgoing)) break;
      sent += chunk.length;
      if (!outgoing.write(chunk)) await next(outgoing, "drain");
    }
    if (!isGone(outgoing)) {
      outgoing.end();
      await next(outgoing, "finish");
    }
    return { sent, complete: outgoing.writableFinished };
  } catch (error) {
    outgoing.destroy();
    return { sent, complete: false, error };
  } finally {
    clearTimeout(tooSlow);
  }
}

function isGone(outgoing: ServerResponse): boolean {
  return outgoing.destroyed || outgoing.closed;
}

/** Waits for the event, or for the end of the connection. */
async function next(outgoing: ServerResponse, event: "drain" | "finish"): Promise<void> {
  if (isGone(outgoing)) return;
  await new Promise<void>((resolve) => {
    const done = (): void => {
      outgoing.off(event, done).off("close", done);
      resolve();
    };
    outgoing.on(event, done).on("close", done);
  });
}
