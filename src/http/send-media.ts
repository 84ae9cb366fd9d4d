/** Media on its way to the client, through Node's own stream: a web stream would cost a quarter of the speed. */
import { once } from "node:events";
import type { ServerResponse } from "node:http";

/** Milliseconds without a byte taken, after which a reader has lost its place. */
const IDLE_LIMIT = 60_000;

/** How a body went. */
export interface Delivery {
  readonly sent: number;
  /** Whether everything was handed to the network. */
  readonly complete: boolean;
  readonly error?: unknown;
}

/**
 * Writes head and body. Never throws: the status is out, and the text of an error would be taken for media. Whatever goes wrong, the
 * connection is destroyed, and the client sees fewer bytes than were announced.
 */
export async function sendMedia(
  outgoing: ServerResponse,
  headers: Readonly<Record<string, string>>,
  body: AsyncIterable<Buffer>,
  idleLimit = IDLE_LIMIT,
): Promise<Delivery> {
  let sent = 0;
  try {
    outgoing.setTimeout(idleLimit, () => outgoing.destroy());
    outgoing.writeHead(200, headers);
    const closed = once(outgoing, "close");
    for await (const chunk of body) {
      if (outgoing.destroyed) break;
      sent += chunk.length;
      if (!outgoing.write(chunk)) await Promise.any([once(outgoing, "drain"), closed]);
    }
    if (!outgoing.destroyed) outgoing.end();
    await closed;
    return { sent, complete: outgoing.writableFinished };
  } catch (error) {
    outgoing.destroy();
    return { sent, complete: false, error };
  }
}
