import { createHash, randomBytes } from "node:crypto";
import { array, assert, asyncProperty, constantFrom, nat, pre } from "fast-check";
import { describe, expect, it } from "vitest";
import { ChangedMediaError, PieceHasher, receiveVerified, verifiedPieces } from "../../src/scan/pieces.ts";
import { HEAD_SIZE, PIECE_SIZE, type SourceRecord } from "../../src/verdicts/store.ts";

const media = randomBytes(2 * PIECE_SIZE + 5);

function recordOf(bytes: Buffer): SourceRecord {
  const hasher = new PieceHasher();
  hasher.update(bytes);
  return { content: "content", digest: "digest", size: bytes.length, pieces: hasher.finish().pieces };
}

async function* cut(bytes: Buffer, at: readonly number[]): AsyncGenerator<Buffer> {
  const ends = [...new Set(at.map((one) => one % (bytes.length + 1)))].toSorted((one, other) => one - other);
  let from = 0;
  for (const to of [...ends, bytes.length]) {
    yield bytes.subarray(from, to);
    from = to;
  }
}

/** What leaves by pieces, and what a taker that waits for the end may hand on; `undefined` where it may hand on nothing. */
async function released(
  body: Buffer,
  record: SourceRecord,
  at: readonly number[],
): Promise<{ piecewise: Buffer; whole: Buffer | undefined }> {
  const piecewise: Buffer[] = [];
  let error: unknown;
  try {
    for await (const piece of verifiedPieces(cut(body, at), record)) piecewise.push(...piece);
  } catch (thrown) {
    error = thrown;
  }
  const taken: Buffer[] = [];
  const whole = receiveVerified(cut(body, at), record, (chunk) => void taken.push(chunk)).then(
    () => Buffer.concat(taken),
    (thrown: unknown) => {
      expect(thrown).toBeInstanceOf(ChangedMediaError);
      return undefined;
    },
  );
  const result = { piecewise: Buffer.concat(piecewise), whole: await whole };
  expect(result.whole === undefined).toBe(error instanceof ChangedMediaError);
  return result;
}

const cuts = array(nat(media.length), { maxLength: 8 });
const sizes = constantFrom(0, 1, HEAD_SIZE, PIECE_SIZE - 1, PIECE_SIZE, PIECE_SIZE + 1, media.length);

describe("the digests of pieces", () => {
  it("are those of the bytes, however they come, and the digest of all beside them", async () => {
    await assert(
      asyncProperty(sizes, cuts, async (size, at) => {
        const bytes = media.subarray(0, size);
        const hasher = new PieceHasher();
        for await (const chunk of cut(bytes, at)) hasher.update(chunk);
        const { all, pieces } = hasher.finish();
        const digests = size > PIECE_SIZE ? [digestOf(bytes.subarray(0, HEAD_SIZE))] : [];
        for (let from = 0; from < size; from += PIECE_SIZE) digests.push(digestOf(bytes.subarray(from, from + PIECE_SIZE)));
        expect(all).toEqual(digestOf(bytes));
        expect(pieces).toEqual(Buffer.concat(digests));
      }),
      { numRuns: 30 },
    );
  });
});

describe("known media that comes again", () => {
  it("takes about as much memory as it has bytes, though they come one by one, each beside much else", async () => {
    const bytes = randomBytes(100_000);
    async function* single(): AsyncGenerator<Buffer> {
      for (const byte of bytes) yield Buffer.alloc(64, byte).subarray(0, 1);
    }
    const parts: Buffer[] = [];
    for await (const piece of verifiedPieces(single(), recordOf(bytes))) parts.push(...piece);
    expect(Buffer.concat(parts).equals(bytes)).toBe(true);
    expect(parts.length).toBeLessThan(10);
    const memory = [...new Set(parts.map(({ buffer }) => buffer))].reduce((sum, { byteLength }) => sum + byteLength, 0);
    expect(memory).toBeLessThan(1.2 * bytes.length);
  });

  it("leaves whole when it is what was scanned, however it comes", async () => {
    await assert(
      asyncProperty(sizes, cuts, async (size, at) => {
        const bytes = media.subarray(0, size);
        const { piecewise, whole } = await released(bytes, recordOf(bytes), at);
        expect(piecewise.equals(bytes)).toBe(true);
        expect(whole?.equals(bytes)).toBe(true);
      }),
      { numRuns: 30 },
    );
  });

  it("leaves up to the piece before a changed byte, and not at all to who waits for the end", async () => {
    await assert(
      asyncProperty(nat(media.length - 1), cuts, async (changed, at) => {
        const other = Buffer.from(media);
        other[changed] = (other[changed] ?? 0) ^ 1;
        const { piecewise, whole } = await released(other, recordOf(media), at);
        expect(whole).toBeUndefined();
        const good = changed >= HEAD_SIZE && changed < PIECE_SIZE ? HEAD_SIZE : Math.floor(changed / PIECE_SIZE) * PIECE_SIZE;
        expect(piecewise.equals(media.subarray(0, good))).toBe(true);
      }),
      { numRuns: 20 },
    );
  });

  it("is never whole with fewer bytes or more", async () => {
    await assert(
      asyncProperty(sizes, sizes, cuts, async (size, scanned, at) => {
        pre(size !== scanned);
        const { piecewise, whole } = await released(media.subarray(0, size), recordOf(media.subarray(0, scanned)), at);
        expect(whole).toBeUndefined();
        expect(piecewise.length).toBeLessThanOrEqual(Math.min(size, scanned));
      }),
      { numRuns: 30 },
    );
  });
});

function digestOf(bytes: Buffer): Buffer {
  return createHash("sha256").update(bytes).digest();
}
