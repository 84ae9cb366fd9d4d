/** Media that may only leave where somebody knows what it is. */
import { GatewayError } from "../errors.ts";
import type { TypeDetector } from "../media/mime.ts";
import { isOpaque } from "../media/opacity.ts";
import { waitFor } from "./deadline.ts";
import { takePrefix } from "./prefix.ts";
import type { DeliverableMedia } from "./request.ts";

/**
 * The same media, once its first bytes have shown what it is. They are those that would leave: of known media they were checked by then.
 * @throws GatewayError `opaque`, or whatever keeps that from being known; the media is closed then.
 */
export async function refuseOpaque(media: DeliverableMedia, types: TypeDetector, signal: AbortSignal): Promise<DeliverableMedia> {
  const chunks = media.body[Symbol.asyncIterator]();
  try {
    const { prefix, taken } = await takePrefix(chunks);
    const type = await waitFor(types.detect(prefix), signal);
    if (isOpaque(prefix, type)) throw new GatewayError("opaque", { detail: type.mime });
    const close = async (): Promise<void> => {
      // Where nobody has read the rest, its holders have not let go.
      await chunks.return?.();
      await media.close();
    };
    return { ...media, body: resumed(taken, chunks), close };
  } catch (error) {
    await chunks.return?.();
    await media.close();
    throw error;
  }
}

async function* resumed(taken: Buffer[], rest: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
  try {
    yield* taken.splice(0);
    for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value;
  } finally {
    await rest.return?.();
  }
}
