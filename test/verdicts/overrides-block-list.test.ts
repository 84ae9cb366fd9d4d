import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, rename, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { VerdictKeys } from "../../src/verdicts/keys.ts";
import { BlockList, isOnBlockList } from "../../src/verdicts/overrides-block-list.ts";

const keys = new VerdictKeys(randomBytes(32));
const hash = () => randomBytes(32).toString("hex");
const bytes = (hex: string) => Buffer.from(hex, "hex");

let directory: string;
let path: string;
let logged: string[] = [];
const log = {
  info: (details: object, message: string) => void logged.push(`${message} ${JSON.stringify(details)}`),
  warn: (details: object, message: string) => void logged.push(`${message} ${JSON.stringify(details)}`),
};
const open: BlockList[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "mig-block-list-"));
  path = join(directory, "hashes");
  logged = [];
});
afterEach(async () => {
  await Promise.all(open.splice(0).map((list) => list[Symbol.asyncDispose]()));
  await rm(directory, { recursive: true });
});

async function listOf(text: string): Promise<BlockList> {
  await writeFile(path, text);
  const list = await BlockList.open({ path, keys, log });
  open.push(list);
  return list;
}

const isBlocked = (list: BlockList, hex: string) => list.of(keys.digest(bytes(hex)))?.kind === "block";
const until = (what: () => unknown) => expect.poll(what, { timeout: 15_000 });

describe("a list of content to block", () => {
  it("holds hashes in any case, comments and blank lines, however lines end", async () => {
    const [a, b, c, d] = [hash(), hash(), hash(), hash()];
    const list = await listOf(`\ufeff${a}\r\n\r\n# from a feed; ä\n  ${b.toUpperCase()}  # why\n\t\n${c}#x\n${d}`);
    expect([a, b, c, d].map((one) => isBlocked(list, one))).toEqual([true, true, true, true]);
    expect(isBlocked(list, hash())).toBe(false);
    expect(list.of(keys.digest(bytes(a)))).toEqual({
      kind: "block",
      reason: "on the list of blocked hashes",
      at: expect.any(Number),
      expiresAt: undefined,
    });
    expect(list.forgottenAt()).toBe(-Infinity);
    expect(list.health()).toEqual({ degraded: false, problems: [] });
    expect([await isOnBlockList(path, bytes(b)), await isOnBlockList(path, bytes(hash()))]).toEqual([true, false]);
  });

  it("may be empty", async () => {
    expect(isBlocked(await listOf(""), hash())).toBe(false);
  });

  it("is read again when it is replaced, changed in place, or has a line more", async () => {
    const [a, b, c] = [hash(), hash(), hash()];
    const list = await listOf(`${a}\n`);
    await writeFile(`${path}.new`, `${b}\n`);
    await rename(`${path}.new`, path);
    await until(() => [isBlocked(list, a), isBlocked(list, b)]).toEqual([false, true]);
    await writeFile(path, `${c}\n`);
    await until(() => [isBlocked(list, b), isBlocked(list, c)]).toEqual([false, true]);
    await writeFile(path, `${a}\n`, { flag: "a" });
    await until(() => [isBlocked(list, a), isBlocked(list, c)]).toEqual([true, true]);
  });

  it("says how many it names, at the start and after each change", async () => {
    const [a, b] = [hash(), hash()];
    const list = await listOf(`${a}\n${a.toUpperCase()}\n${b}\n`);
    await writeFile(path, a);
    await until(() => isBlocked(list, b)).toBe(false);
    expect(logged).toEqual([
      `the list of blocked hashes is read ${JSON.stringify({ path, hashes: 2 })}`,
      `the list of blocked hashes is read anew ${JSON.stringify({ path, before: 2, hashes: 1 })}`,
    ]);
  });

  it("stays as it was while the new version is being written", async () => {
    const [old, last] = [hash(), hash()];
    const list = await listOf(old);
    await writeFile(path, "");
    for (let n = 0; n < 60; n++) {
      await writeFile(path, `${hash()}\n`, { flag: "a" });
      await sleep(25);
      expect(isBlocked(list, old)).toBe(true);
    }
    await writeFile(path, last, { flag: "a" });
    await until(() => [isBlocked(list, old), isBlocked(list, last)]).toEqual([false, true]);
  });

  it.each<[string, string | RegExp, (good: string) => Promise<unknown>]>([
    ["is malformed", ":3: is no SHA-256 in hex", (good) => writeFile(path, `${good}\n${hash().slice(1)}\n`)],
    ["has a hash too long", ":1: is no SHA-256 in hex", () => writeFile(path, `${hash()}0\n`)],
    ["has two on a line", ":1: is no SHA-256 in hex", () => writeFile(path, `${hash()} ${hash()}\n`)],
    ["is no text", /:\d+: is/, () => writeFile(path, randomBytes(100_000))],
    ["has an endless line", ":2: is longer than 4096 characters", () => writeFile(path, `#\n#${"x".repeat(200_000)}`)],
    ["has too many lines", ": has more than 1000000 lines", () => writeFile(path, "\n".repeat(1_000_001))],
    ["is too large", ": is larger than 64 MiB", async () => writeFile(path, "").then(() => truncate(path, 64 * 1024 * 1024 + 1))],
    ["is gone", " is not there", () => rm(path)],
    ["is emptied", ": names nothing any more; if that is meant, start the gateway anew", () => truncate(path, 0)],
    ["has comments alone", ": names nothing any more; if that is meant, start the gateway anew", () => writeFile(path, "# none\n\n")],
    ["is a directory", ": is no regular file", async () => rm(path).then(() => mkdir(path))],
  ])("stays as it was while the new version %s, and readiness and log tell", async (_, told, change) => {
    const [a, b] = [hash(), hash()];
    const good = `# a good one\n${a}`;
    const list = await listOf(good);
    await change(good);
    await until(() => list.health().problems).toEqual([
      expect.stringMatching(told instanceof RegExp ? told : escaped(`${path}${told}; the list before it stays`)),
    ]);
    expect(isBlocked(list, a)).toBe(true);
    expect(logged.join()).toContain("the list before it stays");
    await rm(path, { recursive: true, force: true });
    await writeFile(path, b);
    await until(() => [isBlocked(list, a), isBlocked(list, b), list.health().degraded]).toEqual([false, true, false]);
  });

  it("keeps a gateway from starting when it can't be used", async () => {
    await expect(listOf("x")).rejects.toMatchObject({ code: "overrides_unusable", message: `${path}:1: is no SHA-256 in hex` });
    await rm(path);
    await expect(BlockList.open({ path, keys, log })).rejects.toMatchObject({
      code: "overrides_unusable",
      message: `${path} is not there`,
    });
    await expect(isOnBlockList(path, bytes(hash()))).rejects.toMatchObject({ code: "overrides_unusable" });
  });

  it("with many hashes is taken in piece by piece: others get their turn, and the list before it holds until then", async () => {
    const [old, ...many] = Array.from({ length: 300_001 }, hash);
    const list = await listOf(old ?? "");
    const last = many.at(-1) ?? "";
    let turns = 0;
    const lists: boolean[] = [];
    const counting = setInterval(() => {
      turns += 1;
      lists.push(isBlocked(list, old ?? "") || isBlocked(list, last));
    }, 1);
    try {
      await writeFile(`${path}.new`, many.join("\n"));
      turns = 0;
      await rename(`${path}.new`, path);
      await until(() => isBlocked(list, last)).toBe(true);
    } finally {
      clearInterval(counting);
    }
    expect(turns).toBeGreaterThan(100);
    expect(lists).not.toContain(false);
    expect(many.every((one) => isBlocked(list, one))).toBe(true);
    expect(isBlocked(list, hash())).toBe(false);
  });
});

function escaped(text: string): RegExp {
  return new RegExp(`^${RegExp.escape(text)}$`);
}
