import { createHash } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { crc32 } from "node:zlib";
import { describe, expect, it } from "vitest";
import { EICAR } from "../../src/scan/canary-samples.ts";
import { type LargeCanary, largeCanary, MAX_CANARY_SIZE, MIN_CANARY_SIZE } from "../../src/scan/large-canary.ts";
import { machine } from "../support/peers/choose-machine.ts";

const MEBIBYTE = 1024 * 1024;
const sevens = (size: number): Buffer => Buffer.alloc(size, 7);

async function bytesOf(canary: LargeCanary): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(canary.open()));
}

const hash = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");

/** The entries as the directory at the archive's end tells them. */
function entriesOf(archive: Buffer): { readonly method: number; readonly crc: number; readonly data: Buffer }[] {
  const end = archive.lastIndexOf(Buffer.from("PK\x05\x06", "latin1"));
  let at = archive.readUInt32LE(end + 16);
  return Array.from({ length: archive.readUInt16LE(end + 10) }, () => {
    const local = archive.readUInt32LE(at + 42);
    const start = local + 30 + archive.readUInt16LE(local + 26) + archive.readUInt16LE(local + 28);
    const data = archive.subarray(start, start + archive.readUInt32LE(at + 20));
    const entry = { method: archive.readUInt16LE(at + 10), crc: archive.readUInt32LE(at + 16), data };
    at += 46 + archive.readUInt16LE(at + 28);
    return entry;
  });
}

describe("a large canary", () => {
  it.each([MIN_CANARY_SIZE, 1025, 256 * 1024, MEBIBYTE, 3_000_001])("of %i bytes has just as many", async (size) => {
    const canary = largeCanary(size);
    expect(canary.size).toBe(size);
    expect(await bytesOf(canary)).toHaveLength(size);
  });

  it("is a zip that Info-ZIP finds no fault with: padding, and then EICAR", async () => {
    const where = await machine();
    const directory = await where.makeDirectory();
    try {
      await where.write(`${directory}/canary.zip`, await bytesOf(largeCanary(3_000_001)));
      expect(await where.run(["unzip", "-t", `${directory}/canary.zip`])).toContain("No errors detected");
      const sizes = (await where.run(["unzip", "-l", `${directory}/canary.zip`])).match(/^ *\d+ .*\.(bin|com)$/gm) ?? [];
      expect(sizes.map((line) => Number.parseInt(line, 10))).toEqual([expect.closeTo(3_000_000, -3), 68]);
      expect(await where.run(["unzip", "-p", `${directory}/canary.zip`, "*.com"])).toBe(EICAR.toString("latin1"));
    } finally {
      await where.remove(directory);
    }
  });

  it("holds nothing compressed: what a scanner does not look at, it skipped of what was sent", async () => {
    const entries = entriesOf(await bytesOf(largeCanary(MEBIBYTE)));
    expect(entries.map(({ method }) => method)).toEqual([0, 0]);
    for (const { crc, data } of entries) expect(crc).toBe(crc32(data));
  });

  it("is the same in every pass, so that a second try sends what the first did", async () => {
    const canary = largeCanary(MEBIBYTE);
    expect((await bytesOf(canary)).equals(await bytesOf(canary))).toBe(true);
  });

  it("is another each time, and so is every entry but EICAR, by its randomness alone", async () => {
    const [one, two] = [await bytesOf(largeCanary(MEBIBYTE)), await bytesOf(largeCanary(MEBIBYTE))];
    expect(hash(one)).not.toBe(hash(two));
    expect(hash(entriesOf(one)[0]?.data ?? one)).not.toBe(hash(entriesOf(two)[0]?.data ?? one));
    expect(hash(await bytesOf(largeCanary(MEBIBYTE, sevens)))).toBe(hash(await bytesOf(largeCanary(MEBIBYTE, sevens))));
  });

  it("is never in memory: a pass shares one small piece of zeros", async () => {
    const memory = new Set<ArrayBufferLike>();
    let largest = 0;
    for await (const { buffer, length } of largeCanary(64 * MEBIBYTE).open()) {
      memory.add(buffer);
      largest = Math.max(largest, length);
    }
    expect(memory.size).toBeLessThan(5);
    expect(largest).toBeLessThanOrEqual(MEBIBYTE);
  });

  it("lets others have their turn while its checksum is reckoned", async () => {
    const pass = largeCanary(64 * MEBIBYTE).open();
    const first = pass.next();
    const reckoned = first.then(() => true);
    let turns = 0;
    while (!(await Promise.race([reckoned, setImmediate(false)]))) turns += 1;
    await pass.return(undefined);
    expect(turns).toBeGreaterThan(32);
  });

  it.each([0, MIN_CANARY_SIZE - 1, 2000.5, MAX_CANARY_SIZE + 1, Number.NaN])("of %d bytes there is none", (size) => {
    expect(() => largeCanary(size)).toThrow(RangeError);
  });
});
