/** The worker thread of `mime`: takes prefixes, one at a time, and answers each with its type. Whatever goes wrong ends it. */
import { parentPort } from "node:worker_threads";
import { fileTypeFromBuffer } from "file-type";
import { WASMagic } from "wasmagic";
import { describeType, UNKNOWN } from "./mime-names.ts";
import type { DetectedType } from "./mime.ts";

/** libmagic's time on text grows with what it is given: 5 ms for this much, and 30 ms for nothing but line feeds. */
const HEAD_SIZE = 4096;
const ISO_9660_MARK = "CD001";
const ISO_9660_MARK_OFFSET = 32_769;

const libmagic = await WASMagic.create();

/**
 * libmagic goes first: lists were written in its names, and where the two differ it is the stricter (an SVG that begins as XML, a PDF behind
 * leading junk). file-type is asked about what libmagic leaves open.
 */
async function typeOf(prefix: Buffer): Promise<DetectedType> {
  const head = prefix.subarray(0, HEAD_SIZE);
  const isIso = prefix.toString("latin1", ISO_9660_MARK_OFFSET, ISO_9660_MARK_OFFSET + ISO_9660_MARK.length) === ISO_9660_MARK;
  const magic = cleaned(libmagic.detect(isIso ? prefix : head));
  const cut = prefix.length > head.length;
  if (magic !== UNKNOWN && magic !== "application/zip") return describeType(magic, { head, cut });
  // It only adds to what libmagic said, so its failure takes nothing away.
  const finer = await fileTypeFromBuffer(head).catch(() => undefined);
  return describeType(magic, { head, cut, ...(finer === undefined ? {} : { finer: { ...finer, mime: cleaned(finer.mime) } }) });
}

/** libmagic answers trouble with words in place of a name, and file-type adds parameters. */
function cleaned(mime: string): string {
  return /^[\w.+-]+\/[\w.+-]+/.exec(mime)?.[0].toLowerCase() ?? UNKNOWN;
}

parentPort?.on("message", (bytes: Uint8Array) => {
  void typeOf(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)).then(answer);
});
answer("ready");

function answer(message: DetectedType | "ready"): void {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread's port has no origin
  parentPort?.postMessage(message);
}
