import { randomBytes } from "node:crypto";
import { mkdtemp, readdir, readFile, readlink, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { SpoolFile } from "../../src/media/spool-file.ts";

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "spool-file-test-"));
});

afterEach(() => rm(directory, { recursive: true, force: true }));

/** What is in the files of the test's directory that are open, though none is named there. */
async function onDisk(): Promise<Buffer[]> {
  const paths = (await readdir("/proc/self/fd")).map((fd) => `/proc/self/fd/${fd}`);
  const targets = await Promise.all(paths.map((path) => readlink(path).catch(() => "")));
  return Promise.all(paths.filter((_path, index) => targets[index]?.startsWith(directory)).map((path) => readFile(path)));
}

describe("a spool file", () => {
  it("gives back what was written, at any position and of any length", async () => {
    const bytes = randomBytes(100_000);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: bytes.length }), { maxLength: 6 }),
        fc.array(fc.tuple(fc.integer({ min: 0, max: bytes.length }), fc.integer({ min: 0, max: bytes.length })), { maxLength: 10 }),
        async (cuts, passages) => {
          const file = await SpoolFile.open(directory);
          const ends = [...cuts, bytes.length].sort((one, other) => one - other);
          const blocks = ends.map((end, index) => bytes.subarray(ends[index - 1] ?? 0, end));
          await file.write(blocks.slice(0, 2), 0);
          await file.write(blocks.slice(2), ends[Math.min(1, ends.length - 1)] ?? 0);
          const reader = file.reader();
          const read = async ([one, other]: readonly [number, number]): Promise<void> => {
            const [start, end] = [Math.min(one, other), Math.max(one, other)];
            const passage = await reader.read(start, end - start);
            expect(passage.equals(bytes.subarray(start, end))).toBe(true);
            expect(passage.buffer.byteLength).toBe(end - start);
          };
          for (const passage of passages) await read(passage);
          await Promise.all(passages.map(read));
          // As a pass does: each where the one before ended.
          const steps = [0, ...ends];
          for (const [index, end] of ends.entries()) await read([steps[index] ?? 0, end]);
          await read([0, bytes.length]);
          await file.close();
        },
      ),
      { numRuns: 50 },
    );
  });

  it("leaves nothing of it readable on the disk, in no two files the same, and nothing of its writer's changed", async () => {
    const bytes = Buffer.alloc(200_000, "what nobody else is to read. ");
    const files = [await SpoolFile.open(directory), await SpoolFile.open(directory)];
    for (const file of files) await file.write([bytes.subarray(0, 70_001), bytes.subarray(70_001)], 0);
    expect(bytes.equals(Buffer.alloc(200_000, "what nobody else is to read. "))).toBe(true);
    const found = await onDisk();
    expect(found.map(({ length }) => length)).toEqual([bytes.length, bytes.length]);
    const [one = bytes, other = bytes] = found;
    for (const content of found) expect(content.includes("read")).toBe(false);
    // Not one stretch of it is encrypted as another is, in the same file or the other.
    const stretches = [one, other].flatMap((content) =>
      Array.from({ length: bytes.length / 16 }, (_, index) => content.toString("hex", 16 * index, 16 * index + 16)),
    );
    const expected = Array.from({ length: bytes.length / 16 }, (_, index) => bytes.toString("hex", 16 * index, 16 * index + 16));
    expect(new Set([...stretches, ...expected]).size).toBe(stretches.length + new Set(expected).size);
    for (const file of files) await file.close();
    expect(await onDisk()).toEqual([]);
  });
});
