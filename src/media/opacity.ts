/** Whether anybody can tell what a file is: of ciphertext nobody can. */
import { UNKNOWN } from "./mime-names.ts";
import type { DetectedType } from "./mime.ts";

/**
 * Types whose mark is a byte or two, so that one in eighty random files seems to have one of them. (COM programs, which begin with a jump, are known by
 * the same name as those that begin with MZ.)
 */
const FAINT: ReadonlySet<string> = new Set([
  "application/vnd.microsoft.portable-executable",
  "application/x-compress",
  "application/x-ibm-dsk",
  "application/x-lanalyzer",
  "application/zlib",
  "audio/mpeg",
  "audio/x-hx-aac-adts",
  "audio/x-mp4a-latm",
  "audio/x-syx",
  "image/x-award-bioslogo",
  "video/mp2t",
]);

/** Bytes; where there are fewer, no statistics can be had. */
const ENOUGH = 1024;
const SAMPLE = 4096;
/** Of random bytes, chi-squared over the 256 values is 255, give or take 23; six times that is never seen. */
const RANDOM_CHI_SQUARED = 255 + 6 * 23;

/**
 * @param prefix the first bytes, as `type` was told from them
 * @returns true for what has no type, but is no text either; and for what has a faint one and looks like random bytes. An empty file is not opaque.
 */
export function isOpaque(prefix: Uint8Array, type: DetectedType): boolean {
  if (type.mime === UNKNOWN) return !isText(prefix) && !isTagged(prefix);
  return FAINT.has(type.mime) && looksRandom(prefix.subarray(0, SAMPLE));
}

/** A word is too short for libmagic. */
function isText(prefix: Uint8Array): boolean {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(prefix, { stream: true });
    // oxlint-disable-next-line no-control-regex -- what is no text has some
    return !/[\u0000-\u0008\u000e-\u001f\u007f]/u.test(text);
  } catch {
    return false;
  }
}

/** MP3 behind a picture of its cover: libmagic looks for the sound behind the tag, which is further away than it is given to see. */
function isTagged(prefix: Uint8Array): boolean {
  const version = prefix[3] ?? 0;
  return Buffer.from(prefix.subarray(0, 3)).toString("latin1") === "ID3" && version >= 2 && version <= 4;
}

function looksRandom(sample: Uint8Array): boolean {
  if (sample.length < ENOUGH) return true;
  const counts = new Uint32Array(256);
  for (const byte of sample) counts[byte] = (counts[byte] ?? 0) + 1;
  const expected = sample.length / 256;
  return counts.reduce((sum, count) => sum + (count - expected) ** 2, 0) / expected < RANDOM_CHI_SQUARED;
}
