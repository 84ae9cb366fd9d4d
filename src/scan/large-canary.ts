/** A canary of any size: a zip padded with zeros, EICAR as its last entry, made while it is sent. */
import { randomBytes } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { crc32 } from "node:zlib";
import { storedEicar } from "./canary-samples.ts";
import { directory, localHeader, MAX_ZIP_SIZE, type ZipEntry } from "./zip.ts";

export interface LargeCanary {
  /** Bytes that `open` yields. */
  readonly size: number;
  /** A pass over the very same bytes each time. Chunks are shared: nobody may write to them. */
  open(): AsyncGenerator<Uint8Array>;
}

/** What an archive of this kind needs, and what a zip can hold at most. */
export const MIN_CANARY_SIZE = 1024;
export const MAX_CANARY_SIZE = MAX_ZIP_SIZE;

const ZEROS = Buffer.alloc(256 * 1024);
/** Random bytes that the padding begins with, so that neither the archive nor the entry is known to a cache of hashes. */
const HEAD_SIZE = 16;

/**
 * EICAR behind one stored entry that fills the archive: what a scanner leaves out for the size of the file, of an entry or of all that it
 * unpacks shows in EICAR being missed. Engines that count the archive and what they unpack from it together count it twice.
 * @throws RangeError for a size below `MIN_CANARY_SIZE` or beyond `MAX_CANARY_SIZE`.
 */
export function largeCanary(size: number, random: (size: number) => Buffer = randomBytes): LargeCanary {
  if (!Number.isSafeInteger(size) || size < MIN_CANARY_SIZE || size > MAX_CANARY_SIZE) throw new RangeError(`no canary has ${size} bytes`);
  const head = random(HEAD_SIZE);
  const padding = { name: `${random(8).toString("hex")}.bin`, method: 0, encrypted: false } as const;
  const eicar = storedEicar(random);
  const comment = random(8).toString("hex");

  /** The archive before and behind the zeros, whose lengths do not depend on sizes and checksum. */
  const around = (packed: number, crc: number): readonly [Buffer, Buffer] => {
    const entry: ZipEntry = { ...padding, packed, crc, size: packed };
    const start = localHeader(entry);
    const last = Buffer.concat([localHeader(eicar), eicar.data]);
    const offset = start.length + packed;
    const entries = [
      { entry, offset: 0 },
      { entry: eicar, offset },
    ];
    return [Buffer.concat([start, head]), Buffer.concat([last, directory(entries, offset + last.length, comment)])];
  };

  const zeros = size - around(0, 0).reduce((sum, { length }) => sum + length, 0);
  return {
    size,
    async *open() {
      const [before, behind] = around(HEAD_SIZE + zeros, await checksum(head, zeros));
      yield before;
      yield* zeroChunks(zeros);
      yield behind;
    },
  };
}

/** CRC-32 of the head and that many zeros; stands before them, so it is reckoned first. Others get their turn in between. */
async function checksum(head: Buffer, zeros: number): Promise<number> {
  let crc = crc32(head);
  for (const chunk of zeroChunks(zeros)) {
    crc = crc32(chunk, crc);
    await setImmediate();
  }
  return crc;
}

function* zeroChunks(size: number): Generator<Buffer> {
  for (let left = size; left > 0; left -= ZEROS.length) yield ZEROS.subarray(0, left);
}
