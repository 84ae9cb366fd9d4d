import { PREFIX_SIZE } from "../media/mime.ts";

/** The first bytes, by which a type is told: `PREFIX_SIZE` of them, or all there are. @throws whatever the body throws before that. */
export async function prefixOf(body: AsyncIterable<Buffer>): Promise<Buffer> {
  const head: Buffer[] = [];
  let size = 0;
  for await (const chunk of body) {
    head.push(chunk.subarray(0, PREFIX_SIZE - size));
    size += chunk.length;
    if (size >= PREFIX_SIZE) break;
  }
  return Buffer.concat(head);
}
