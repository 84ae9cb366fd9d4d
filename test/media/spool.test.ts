import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, readdir, readlink, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import * as fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Spool } from "../../src/media/spool.ts";
import { SpoolPool, type SpoolPoolOptions } from "../../src/media/spool-pool.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const never = new AbortController().signal;

let directory: string;
let pools: SpoolPool[];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "spool-test-"));
  pools = [];
});

afterEach(async () => {
  await Promise.all(pools.map((pool) => pool[Symbol.asyncDispose]()));
  await rm(directory, { recursive: true, force: true });
});

function poolOf({ inMemory = MIB, ...options }: Partial<SpoolPoolOptions> = {}): SpoolPool {
  const pool = new SpoolPool({ memory: 4 * inMemory, disk: 16 * MIB, inMemory, directory, ...options });
  pools.push(pool);
  return pool;
}

async function contentOf(spool: Spool): Promise<Buffer> {
  return Buffer.concat(await piecesOf(spool));
}

async function piecesOf(spool: Spool): Promise<Buffer[]> {
  const pieces: Buffer[] = [];
  for await (const piece of spool.read()) pieces.push(piece);
  return pieces;
}

async function fill(spool: Spool, bytes: Buffer, piece = 50_000): Promise<void> {
  for (let at = 0; at < bytes.length; at += piece) await spool.write(bytes.subarray(at, at + piece));
  spool.end();
}

/** Descriptors of this process that lead into the test's directory. */
async function openFiles(): Promise<string[]> {
  const targets = await Promise.all((await readdir("/proc/self/fd")).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => "")));
  return targets.filter((target) => target.startsWith(directory));
}

/** Lets everything that can go on go on. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** Asks for all of them at once; `order` tells who was given room, as it happens. */
async function admitted(pool: SpoolPool, capacities: number[]): Promise<{ order: number[]; spools: Spool[] }> {
  const order: number[] = [];
  const spools: Spool[] = [];
  const ask = async (capacity: number, index: number): Promise<void> => {
    const spool = await pool.create(capacity, never);
    order.push(index);
    spools.push(spool);
  };
  for (const [index, capacity] of capacities.entries()) ask(capacity, index).catch(() => undefined);
  await settle();
  return { order, spools };
}

describe("SpoolPool", () => {
  it("gives every reader all bytes, however they are cut and wherever they are held", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: 70_000 }), { maxLength: 12 }),
        fc.constantFrom(0, 1, 1000, 40_000, 200_000, MIB),
        fc.boolean(),
        async (sizes, inMemory, lengthKnown) => {
          const chunks = sizes.map((size) => randomBytes(size));
          const whole = Buffer.concat(chunks);
          const pool = poolOf({ inMemory });
          const spool = await pool.create(lengthKnown ? whole.length : 2 * MIB, never);
          const early = contentOf(spool);
          const halfway = spool.read()[Symbol.asyncIterator]();
          const slow: Buffer[] = [];
          for (const chunk of chunks) {
            await spool.write(chunk);
            if (slow.length === 0 && spool.size > 0) slow.push((await halfway.next()).value ?? Buffer.alloc(0));
          }
          spool.end();
          for (let next = await halfway.next(); !next.done; next = await halfway.next()) slow.push(next.value);
          expect(spool.size).toBe(whole.length);
          expect(Buffer.concat(slow).equals(whole)).toBe(true);
          expect((await early).equals(whole)).toBe(true);
          expect((await contentOf(spool)).equals(whole)).toBe(true);
          await spool.close();
          expect(pool.usage()).toEqual({ memory: 0, disk: 0, waiting: 0 });
        },
      ),
      { numRuns: 60 },
    );
    expect(await openFiles()).toEqual([]);
  });

  it("does not change a buffer that a reader holds", async () => {
    const spool = await poolOf({ inMemory: 300_000 }).create(3 * MIB, never);
    const bytes = randomBytes(2 * MIB);
    const reading = piecesOf(spool);
    await fill(spool, bytes, 7001);
    const held = await reading;
    await contentOf(spool);
    await spool.close();
    expect(Buffer.concat(held).equals(bytes)).toBe(true);
  });

  it("keeps a large chunk as it is, and of what is part of something larger or comes in bits a copy", async () => {
    for (const inMemory of [MIB, 0]) {
      const spool = await poolOf({ inMemory }).create(MIB, never);
      const pieces = spool.read()[Symbol.asyncIterator]();
      const large = Buffer.from(new ArrayBuffer(64 * KIB)).fill("large");
      await spool.write(large.subarray(1));
      expect((await pieces.next()).value?.buffer).toBe(large.buffer);

      const memory = new Set<ArrayBufferLike | undefined>();
      const part = Buffer.from(new ArrayBuffer(MIB), 1000, 20_000).fill("part");
      await spool.write(part);
      const copied = (await pieces.next()).value;
      expect(copied?.equals(part)).toBe(true);
      memory.add(copied?.buffer);
      for (let n = 0; n < 40_000; n++) await spool.write(Buffer.from(new ArrayBuffer(1)).fill(n));
      memory.add((await pieces.next()).value?.buffer);
      expect([...memory].map((one) => one?.byteLength)).toEqual([inMemory === 0 ? 65 * KIB - 1023 : 128 * KIB]);
      await spool.close();
    }
  });

  it("hands bytes on while the writer is still at it", async () => {
    for (const inMemory of [MIB, 5, 0]) {
      const spool = await poolOf({ inMemory }).create(100_000, never);
      const reader = spool.read()[Symbol.asyncIterator]();
      await spool.write(Buffer.from("first"));
      expect((await reader.next()).value?.toString()).toBe("first");
      const waiting = reader.next();
      await spool.write(Buffer.from("second"));
      expect((await waiting).value?.toString()).toBe("second");
      const last = reader.next();
      spool.end();
      expect((await last).done).toBe(true);
    }
  });

  it("lets go of a reader that leaves while it waits", async () => {
    const spool = await poolOf().create(10, never);
    const reader = spool.read()[Symbol.asyncIterator]();
    const waiting = reader.next();
    await reader.return?.();
    expect((await waiting).done).toBe(true);
  });

  it("keeps a small body of unknown length off the disk", async () => {
    const pool = poolOf({ directory: join(directory, "missing") });
    const spool = await pool.create(8 * MIB, never);
    const bytes = randomBytes(MIB);
    await fill(spool, bytes);
    expect((await contentOf(spool)).equals(bytes)).toBe(true);
    expect(pool.usage()).toEqual({ memory: MIB, disk: 0, waiting: 0 });
  });

  it("gives memory back once a large body is in its file, which no directory names", async () => {
    const pool = poolOf();
    const spool = await pool.create(8 * MIB, never);
    expect(pool.usage()).toEqual({ memory: MIB, disk: 8 * MIB, waiting: 0 });
    const bytes = randomBytes(3 * MIB + 5);
    for (let at = 0; at < bytes.length; at += 65_536) await spool.write(bytes.subarray(at, at + 65_536));
    expect(pool.usage().memory).toBe(0);
    expect(await openFiles()).toHaveLength(1);
    expect(await readdir(directory)).toEqual([]);
    spool.end();
    expect(pool.usage()).toEqual({ memory: 0, disk: bytes.length, waiting: 0 });
    expect((await contentOf(spool)).equals(bytes)).toBe(true);
    await spool.close();
    expect(await openFiles()).toEqual([]);
    expect(pool.usage()).toEqual({ memory: 0, disk: 0, waiting: 0 });
  });

  it("keeps a larger body off the disk while half of the memory stays free for others", async () => {
    const pool = poolOf({ memory: 16 * MIB });
    const bytes = randomBytes(5 * MIB);
    const spools = [await pool.create(5 * MIB, never), await pool.create(3 * MIB, never)];
    expect(pool.usage()).toEqual({ memory: 8 * MIB, disk: 0, waiting: 0 });
    const third = await pool.create(2 * MIB, never);
    expect(pool.usage()).toEqual({ memory: 9 * MIB, disk: 2 * MIB, waiting: 0 });
    await fill(spools[0] as Spool, bytes);
    expect((await contentOf(spools[0] as Spool)).equals(bytes)).toBe(true);
    expect(await openFiles()).toEqual([]);
    for (const spool of [...spools, third]) await spool.close();
    expect(pool.usage()).toEqual({ memory: 0, disk: 0, waiting: 0 });
  });

  it("uses the disk for a small body when memory is full", async () => {
    const pool = poolOf({ memory: 100 * KIB });
    const first = await pool.create(100 * KIB, never);
    const second = await pool.create(100 * KIB, never);
    expect(pool.usage()).toEqual({ memory: 100 * KIB, disk: 100 * KIB, waiting: 0 });
    const bytes = randomBytes(60_000);
    await fill(second, bytes);
    expect((await contentOf(second)).equals(bytes)).toBe(true);
    await first.close();
    expect(pool.usage()).toEqual({ memory: 0, disk: 60_000, waiting: 0 });
  });

  it("refuses more than was reserved, to the writer and the readers", async () => {
    const spool = await poolOf().create(10, never);
    await spool.write(Buffer.from("0123456789"));
    await expect(spool.write(Buffer.from("!"))).rejects.toMatchObject({ code: "too_large" });
    await expect(contentOf(spool)).rejects.toMatchObject({ code: "too_large" });
    expect(spool.size).toBe(10);
  });

  it("gives readers what is there before a failure", async () => {
    for (const inMemory of [MIB, 10]) {
      const spool = await poolOf({ inMemory }).create(1000, never);
      await spool.write(Buffer.from("half"));
      const failure = new Error("cut short");
      const seen: string[] = [];
      const reading = (async () => {
        for await (const piece of spool.read()) seen.push(piece.toString());
      })();
      spool.fail(failure);
      spool.fail(new Error("later"));
      spool.end();
      await expect(reading).rejects.toBe(failure);
      expect(seen.join("")).toBe("half");
      await expect(contentOf(spool)).rejects.toBe(failure);
      await expect(spool.write(Buffer.from("more"))).rejects.toBe(failure);
    }
  });

  it("throws at readers and the writer when it is closed under them", async () => {
    for (const inMemory of [MIB, 10]) {
      const pool = poolOf({ inMemory, memory: inMemory });
      const spool = await pool.create(2 * MIB, never);
      await spool.write(randomBytes(300 * KIB));
      const behind = spool.read()[Symbol.asyncIterator]();
      await behind.next();
      const reading = contentOf(spool);
      const writing = spool.write(randomBytes(MIB));
      const outcomes = Promise.allSettled([reading, writing]);
      await Promise.all([spool.close(), spool.close()]);
      expect(await outcomes).toMatchObject([{ reason: { code: "internal" } }, { reason: { code: "internal" } }]);
      await expect(behind.next()).rejects.toMatchObject({ code: "internal" });
      await expect(spool.write(Buffer.from("x"))).rejects.toMatchObject({ code: "internal" });
      expect(pool.usage()).toEqual({ memory: 0, disk: 0, waiting: 0 });
    }
    expect(await openFiles()).toEqual([]);
  });

  it("refuses a second write while one is under way", async () => {
    const spool = await poolOf({ inMemory: 10 }).create(2 * MIB, never);
    const first = spool.write(randomBytes(MIB));
    await expect(spool.write(Buffer.from("x"))).rejects.toThrow(/one write at a time/);
    await first;
  });

  it("does not leak files when spools are closed at any point", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: 6 }), fc.integer({ min: 0, max: 4 }), async (writes, wait) => {
        const pool = poolOf({ inMemory: 64 * KIB });
        const spool = await pool.create(4 * MIB, never);
        const reading = contentOf(spool).catch(() => undefined);
        const writing = (async () => {
          for (let n = 0; n < writes; n++) await spool.write(Buffer.alloc(150_000, n));
          spool.end();
        })().catch(() => undefined);
        for (let turn = 0; turn < wait; turn++) await new Promise((resolve) => setImmediate(resolve));
        await spool.close();
        await Promise.all([reading, writing]);
        expect(pool.usage()).toEqual({ memory: 0, disk: 0, waiting: 0 });
      }),
      { numRuns: 60 },
    );
    expect(await openFiles()).toEqual([]);
    expect(await readdir(directory)).toEqual([]);
  });

  it("reports a disk that fails as no room, and keeps nothing reserved", async () => {
    const pool = poolOf({ directory: join(directory, "missing"), memory: MIB });
    const filler = await pool.create(MIB, never);
    await expect(pool.create(5 * MIB, never)).rejects.toMatchObject({ code: "no_room", status: 503 });
    expect(pool.usage()).toEqual({ memory: MIB, disk: 0, waiting: 0 });
    await filler.close();

    const late = await pool.create(5 * MIB, never);
    const reading = contentOf(late);
    reading.catch(() => undefined);
    await late.write(randomBytes(MIB));
    await expect(late.write(Buffer.from("past memory"))).rejects.toMatchObject({ code: "no_room" });
    await expect(reading).rejects.toMatchObject({ code: "no_room" });
    await late.close();
    expect(pool.usage()).toEqual({ memory: 0, disk: 0, waiting: 0 });
  });

  it("writes on after a short write, and fails with what is there when the disk takes no more", async () => {
    // A limit on the size of files is met as a full disk is: a write cut short, then an error.
    const script = `
      import { SpoolPool } from ${JSON.stringify(new URL("../../src/media/spool-pool.ts", import.meta.url).href)};
      const pool = new SpoolPool({ memory: 0, disk: 1e9, inMemory: 0, directory: ${JSON.stringify(directory)} });
      const spool = await pool.create(1e8, new AbortController().signal);
      let outcome = "written";
      try { for (let n = 0; n < 40; n++) await spool.write(Buffer.alloc(100_000, n)); } catch (error) { outcome = error.code; }
      let read = 0, wrong = 0, end = "end";
      try { for await (const piece of spool.read()) for (const byte of piece) if (byte !== Math.floor(read++ / 100_000)) wrong++; } catch (error) { end = error.code; }
      await pool[Symbol.asyncDispose]();
      console.log(JSON.stringify({ outcome, end, wrong, enough: read >= 1_000_000 }));`;
    const limited = `trap "" XFSZ; ulimit -f 1000; exec "$0" --input-type=module-typescript -e "$1"`;
    const { stdout } = await promisify(execFile)("bash", ["-c", limited, process.execPath, script]);
    expect(JSON.parse(stdout)).toEqual({ outcome: "no_room", end: "no_room", wrong: 0, enough: true });
  });
});

describe("the line for room", () => {
  it("never promises more than there is, and goes first come, first served", async () => {
    const pool = poolOf({ memory: 100, disk: 0, inMemory: 100 });
    const { order, spools } = await admitted(pool, [60, 60, 10, 40]);
    expect(order).toEqual([0]);
    expect(pool.usage()).toEqual({ memory: 60, disk: 0, waiting: 3 });
    await spools[0]?.close();
    await settle();
    expect(order).toEqual([0, 1, 2]);
    expect(pool.usage()).toEqual({ memory: 70, disk: 0, waiting: 1 });
    await spools[2]?.close();
    await settle();
    expect(order).toEqual([0, 1, 2, 3]);
  });

  it("serves the line when a spool ends shorter than was reserved", async () => {
    const pool = poolOf({ memory: 100, disk: 0, inMemory: 100 });
    const { order, spools } = await admitted(pool, [100, 90]);
    await spools[0]?.write(Buffer.from("0123456789"));
    spools[0]?.end();
    await settle();
    expect(order).toEqual([0, 1]);
    expect(pool.usage()).toEqual({ memory: 100, disk: 0, waiting: 0 });
  });

  it("lets small ones pass a large one that waits for disk, but never for disk", async () => {
    const pool = poolOf({ memory: 100, disk: 1000, inMemory: 100 });
    const { order, spools } = await admitted(pool, [900, 800, 60, 150, 60]);
    // The first took memory as well; the second waits for disk; the small ones wait behind for what it needs.
    expect(order).toEqual([0]);
    await spools[0]?.write(Buffer.alloc(150));
    await settle();
    expect(order).toEqual([0, 2]);
    expect(pool.usage()).toMatchObject({ memory: 60, waiting: 3 });
    await spools[0]?.close();
    await settle();
    expect(pool.usage()).toEqual({ memory: 60, disk: 950, waiting: 1 });
    await expect.poll(() => order.toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3]);
  });

  it("gives room at once where there is the memory with which it begins, and nobody is in line", async () => {
    const pool = poolOf({ memory: 2 * MIB, disk: 4 * MIB });
    const bytes = randomBytes(MIB);
    const first = pool.tryCreate(MIB);
    if (first === undefined) throw new Error("there was room");
    expect(pool.usage()).toMatchObject({ memory: MIB, disk: 0 });
    await fill(first, bytes);
    expect(await contentOf(first)).toEqual(bytes);
    const larger = pool.tryCreate(MIB + 1);
    expect(pool.usage()).toMatchObject({ memory: 2 * MIB, disk: MIB + 1 });
    await larger?.close();
    const second = pool.tryCreate(MIB - 1);
    // There is room on disk, but a file has to be opened for it.
    expect(pool.tryCreate(2)).toBeUndefined();
    expect(pool.tryCreate(MIB + 1)).toBeUndefined();
    expect(pool.usage()).toEqual({ memory: 2 * MIB - 1, disk: 0, waiting: 0 });
    const large = await pool.create(4 * MIB, never);
    const waiting = pool.create(4 * MIB, never);
    await second?.close();
    // Memory is free again, but somebody waits.
    expect(pool.usage().waiting).toBe(1);
    expect(pool.tryCreate(1)).toBeUndefined();
    await large.close();
    await (await waiting).close();
    await first.close();
    expect(pool.tryCreate(1)).toBeDefined();
    await pool[Symbol.asyncDispose]();
    expect(pool.tryCreate(1)).toBeUndefined();
  });

  it("refuses at once what can never fit", async () => {
    const pool = poolOf({ memory: 100, disk: 1000, inMemory: 200 });
    await expect(pool.create(1001, never)).rejects.toMatchObject({ code: "no_room" });
    await expect(poolOf({ memory: 100, disk: 50, inMemory: 200 }).create(150, never)).rejects.toMatchObject({ code: "no_room" });
  });

  it("leaves when its signal aborts, and lets those behind it through", async () => {
    const pool = poolOf({ memory: 100, disk: 0, inMemory: 100 });
    await pool.create(60, never);
    const abort = new AbortController();
    const reason = new Error("gave up");
    const waiting = pool.create(60, abort.signal);
    const { order } = await admitted(pool, [40]);
    expect(order).toEqual([]);
    abort.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    await settle();
    expect(order).toEqual([0]);
    await expect(pool.create(1, abort.signal)).rejects.toBe(reason);
    expect(pool.usage()).toEqual({ memory: 100, disk: 0, waiting: 0 });
  });

  it("leaves no listeners on the signal", async () => {
    const pool = poolOf({ memory: 100, disk: 0, inMemory: 100 });
    const added: string[] = [];
    const signal = new AbortController().signal;
    const add = signal.addEventListener.bind(signal);
    const remove = signal.removeEventListener.bind(signal);
    signal.addEventListener = (...parameters: Parameters<typeof add>) => {
      added.push("+");
      add(...parameters);
    };
    signal.removeEventListener = (...parameters: Parameters<typeof remove>) => {
      added.pop();
      remove(...parameters);
    };
    const spool = await pool.create(100, signal);
    const second = pool.create(100, signal);
    await spool.close();
    await (await second).close();
    expect(added).toEqual([]);
  });

  it("refuses everybody, and closes everything, at the end", async () => {
    const pool = poolOf({ memory: 100, disk: MIB, inMemory: 100 });
    const held = await pool.create(900 * KIB, never);
    await held.write(Buffer.alloc(500));
    const reading = contentOf(held);
    reading.catch(() => undefined);
    const waiting = pool.create(900 * KIB, never);
    waiting.catch(() => undefined);
    await pool[Symbol.asyncDispose]();
    await expect(waiting).rejects.toMatchObject({ code: "shutting_down" });
    await expect(reading).rejects.toMatchObject({ code: "internal" });
    await expect(pool.create(1, never)).rejects.toMatchObject({ code: "shutting_down" });
    expect(pool.usage()).toEqual({ memory: 0, disk: 0, waiting: 0 });
    expect(await openFiles()).toEqual([]);
  });
});
