/** The first bytes of media, by which a type is told. */
import { PREFIX_SIZE } from "../media/mime.ts";

/** `PREFIX_SIZE` of the body's first bytes, or all there are. @throws whatever the body throws before that. */
export async function prefixOf(body: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks = body[Symbol.asyncIterator]();
  try {
    return (await takePrefix(chunks)).prefix;
  } finally {
    await chunks.return?.();
  }
}

/** As `prefixOf`, of a body that somebody reads on from there: `taken` is what was read of it, in whole chunks. */
export async function takePrefix(chunks: AsyncIterator<Buffer>): Promise<{ readonly prefix: Buffer; readonly taken: Buffer[] }> {
  const taken: Buffer[] = [];
  let size = 0;
  while (size < PREFIX_SIZE) {
    const next = await chunks.next();
    if (next.done === true) break;
    taken.push(next.value);
    size += next.value.length;
  }
  return { prefix: Buffer.concat(taken, Math.min(size, PREFIX_SIZE)), taken };
}
