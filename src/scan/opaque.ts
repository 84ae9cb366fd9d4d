/** Media that may only leave where somebody knows what it is. */
import { GatewayError } from "../errors.ts";
import { PREFIX_SIZE, type TypeDetector } from "../media/mime.ts";
import { isOpaque } from "../media/opacity.ts";
import { waitFor } from "./deadline.ts";
import type { DeliverableMedia } from "./request.ts";

/**
 * The same media, once its first bytes have shown what it is. They are those that would leave: of known media they were checked by then.
 * @throws GatewayError `opaque`, or whatever keeps that from being known; the media is closed then.
 */
export async function refuseOpaque(media: DeliverableMedia, types: TypeDetector, signal: AbortSignal): Promise<DeliverableMedia> {
  const chunks = media.body[Symbol.asyncIterator]();
  const head: Buffer[] = [];
  try {
    for (let size = 0; size < PREFIX_SIZE;) {
      const next = await chunks.next();
      if (next.done === true) break;
      head.push(next.value);
      size += next.value.length;
    }
    const prefix = Buffer.concat(head).subarray(0, PREFIX_SIZE);
    const type = await waitFor(types.detect(prefix), signal);
    if (isOpaque(prefix, type)) throw new GatewayError("opaque", { detail: type.mime });
    const close = async (): Promise<void> => {
      // Where nobody has read the rest, its holders have not let go.
      await chunks.return?.();
      await media.close();
    };
    return { ...media, body: resumed(head, chunks), close };
  } catch (error) {
    await chunks.return?.();
    await media.close();
    throw error;
  }
}

async function* resumed(head: Buffer[], rest: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
  try {
    yield* head.splice(0);
    for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value;
  } finally {
    await rest.return?.();
  }
}
