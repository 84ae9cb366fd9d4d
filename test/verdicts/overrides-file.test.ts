import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmod, chown, mkdir, mkdtemp, readFile, readdir, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { VerdictKeys } from "../../src/verdicts/keys.ts";
import { OverrideFileWriter, type OverrideFileWriterOptions } from "../../src/verdicts/overrides-file-writer.ts";
import { FileOverrides, type FileOverridesOptions } from "../../src/verdicts/overrides-file.ts";
import type { OverrideChange } from "../../src/verdicts/overrides-ledger.ts";

const secret = randomBytes(32);
const keySecret = randomBytes(32);
const keys = new VerdictKeys(keySecret);
const HOUR = 3_600_000;
const block: OverrideChange = { kind: "block", reason: "malware nobody knows yet" };
const allow: OverrideChange = { kind: "allow", reason: "a false alarm" };
const forget: OverrideChange = { kind: "forget", reason: "" };
const WRITER = new URL("../../src/verdicts/overrides-file-writer.ts", import.meta.url).href;
const KEYS = new URL("../../src/verdicts/keys.ts", import.meta.url).href;

let directory: string;
let path: string;
let logged: string[] = [];
const log = {
  info: (_: object, message: string) => void logged.push(message),
  warn: (details: object, message: string) => void logged.push(`${message} ${JSON.stringify(details)}`),
};
const books: FileOverrides[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "mig-overrides-"));
  path = join(directory, "overrides");
  logged = [];
});
afterEach(async () => {
  await Promise.all(books.splice(0).map((book) => book[Symbol.asyncDispose]()));
  await rm(directory, { recursive: true });
});

async function bookOf(options: Partial<FileOverridesOptions> = {}): Promise<FileOverrides> {
  const book = await FileOverrides.open({ path, secret, keys, log, ...options });
  books.push(book);
  return book;
}

function writerOf(options: Partial<OverrideFileWriterOptions> = {}): OverrideFileWriter {
  return new OverrideFileWriter({ path, secret, keys, ...options });
}

interface Content {
  readonly sha256: Buffer;
  readonly digest: string;
}

function content(): Content {
  const sha256 = randomBytes(32);
  return { sha256, digest: keys.digest(sha256) };
}

const kindIn = (book: FileOverrides, { digest }: Content) => book.of(digest)?.kind;
const until = (what: () => unknown) => expect.poll(what, { timeout: 15_000 });
const lines = async () => (await readFile(path, "latin1")).trimEnd().split("\n");
const problems = (book: FileOverrides) => book.health().problems.join();

const failure = (message: string) => ({ code: "overrides_unusable", message });

/** A process that blocks these, one after the other; `before` runs in it first. */
async function blockInAnotherProcess(contents: readonly Content[], before = ""): Promise<NodeJS.Signals | number | null> {
  const program = `
    ${before}
    const { OverrideFileWriter } = await import(${JSON.stringify(WRITER)});
    const { VerdictKeys } = await import(${JSON.stringify(KEYS)});
    const bytes = (hex) => Buffer.from(hex, "hex");
    const keys = new VerdictKeys(bytes("${keySecret.toString("hex")}"));
    const writer = new OverrideFileWriter({ path: ${JSON.stringify(path)}, secret: bytes("${secret.toString("hex")}"), keys });
    for (const sha256 of ${JSON.stringify(contents.map(({ sha256 }) => sha256.toString("hex")))}) {
      await writer.write(bytes(sha256), { kind: "block", reason: "" });
    }`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: ["ignore", "ignore", "inherit"] });
  return new Promise((resolve) => child.once("close", (code, signal) => resolve(signal ?? code)));
}

describe("overrides in a file", () => {
  it("reach a gateway that runs, and one that starts later, and end", async () => {
    const [book, file] = [await bookOf(), content()];
    const writer = writerOf();
    await writer.write(file.sha256, block);
    await until(() => book.of(file.digest)).toEqual({ ...block, at: expect.any(Number), expiresAt: undefined });
    expect((await bookOf()).of(file.digest)).toEqual(book.of(file.digest));
    await writer.write(file.sha256, forget);
    await until(() => book.forgottenAt(file.digest)).toBeGreaterThan(0);
    expect(kindIn(book, file)).toBeUndefined();
    await writer.write(file.sha256, allow);
    await until(() => kindIn(book, file)).toBe("allow");
    expect(book.health()).toEqual({ degraded: false, problems: [] });
    expect(logged).toEqual([]);
  });

  it("are for nobody else to read: neither who may read the file, nor who has it, learns what or why", async () => {
    const file = content();
    await writerOf().write(file.sha256, block);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    const text = await readFile(path, "latin1");
    for (const telltale of [file.sha256.toString("hex"), file.sha256.toString("base64url"), "malware"])
      expect(text).not.toContain(telltale);
  });

  it("stay the gateway's own file when root changes them", async () => {
    if (process.getuid?.() !== 0) return;
    await chown(directory, 4242, 4243);
    await writerOf().write(content().sha256, block);
    expect(await stat(path)).toMatchObject({ uid: 4242, gid: 4243 });
    await chown(path, 4244, 4245);
    await writerOf().write(content().sha256, block);
    expect(await stat(path)).toMatchObject({ uid: 4244, gid: 4245 });
  });

  it("are written where a link leads to", async () => {
    await mkdir(join(directory, "elsewhere"));
    await symlink(join(directory, "elsewhere", "file"), join(directory, "link"));
    const [a, b] = [content(), content()];
    await writerOf({ path: join(directory, "elsewhere", "file") }).write(a.sha256, block);
    await writerOf({ path: join(directory, "link") }).write(b.sha256, block);
    const book = await bookOf({ path: join(directory, "elsewhere", "file") });
    expect([kindIn(book, a), kindIn(book, b)]).toEqual(["block", "block"]);
  });

  it("that are over, or ended, leave no lines", async () => {
    const [a, b] = [content(), content()];
    const clock = { now: Date.now() };
    const writer = writerOf({ now: () => clock.now });
    await writer.write(a.sha256, { ...block, expiresAt: clock.now + HOUR });
    await writer.write(b.sha256, block);
    await writer.write(b.sha256, allow);
    expect((await lines()).length).toBe(4);
    clock.now += HOUR;
    await writer.write(b.sha256, forget);
    expect((await lines()).map((line) => line.split(" ")[0])).toEqual(["matrix-icap-gateway", `forget:${b.digest}`]);
    expect((await writer.read()).records).toEqual([{ ...forget, sha256: b.sha256.toString("hex"), at: expect.any(Number) }]);
  });

  it("are refused when there are too many, but what is known can be changed", async () => {
    const [a, b] = [content(), content()];
    const writer = writerOf({ most: 1 });
    await writer.write(a.sha256, block);
    await expect(writer.write(b.sha256, block)).rejects.toMatchObject({
      code: "overrides_unusable",
      message: expect.stringContaining("is full"),
    });
    await writer.write(a.sha256, forget);
    await writerOf().write(b.sha256, block);
    const book = await bookOf({ most: 1 });
    expect(problems(book)).toBe(`${path}: 1 override ignored: no more than 1 are kept`);
    await writer.write(a.sha256, block);
    await until(() => kindIn(book, a)).toBe("block");
    expect(kindIn(await bookOf(), b)).toBe("block");
  });
});

describe("commands that change the file", () => {
  it("lose nothing of each other's, in one process or in several", async () => {
    const contents = Array.from({ length: 24 }, content);
    const writes = contents.slice(0, 8).map(({ sha256 }) => writerOf().write(sha256, block));
    await Promise.all([...writes, blockInAnotherProcess(contents.slice(8, 16)), blockInAnotherProcess(contents.slice(16))]);
    const book = await bookOf();
    expect(contents.map((one) => kindIn(book, one))).toEqual(contents.map(() => "block"));
    expect((await readdir(directory)).toSorted()).toEqual(["overrides", "overrides.lock"]);
  });

  it("leave the old file whole when they are killed before it is replaced, and nobody waits for them", async () => {
    const [before, killed, after] = [content(), content(), content()];
    await writerOf().write(before.sha256, block);
    const old = await readFile(path);
    const killInstead = `
      import fs from "node:fs";
      import { syncBuiltinESMExports } from "node:module";
      fs.promises.rename = () => process.kill(process.pid, "SIGKILL");
      syncBuiltinESMExports();`;
    expect(await blockInAnotherProcess([killed], killInstead)).toBe("SIGKILL");
    expect((await readdir(directory)).filter((name) => name.includes(".new-")).length).toBe(1);
    expect(await readFile(path)).toEqual(old);

    await writerOf().write(after.sha256, block);
    const book = await bookOf();
    expect([before, killed, after].map((one) => kindIn(book, one))).toEqual(["block", undefined, "block"]);
    expect((await readdir(directory)).toSorted()).toEqual(["overrides", "overrides.lock"]);
  });

  it("say why they can't", async () => {
    const file = content();
    await expect(writerOf({ path: join(directory, "nowhere", "file") }).write(file.sha256, block)).rejects.toMatchObject(
      failure(`${directory}/nowhere/file: can't be written (ENOENT)`),
    );
    await expect(writerOf({ path: directory }).read()).rejects.toMatchObject(failure(`${directory}: is no regular file`));
    await writerOf().write(file.sha256, block);
    const stranger = writerOf({ secret: randomBytes(32) });
    await expect(stranger.read()).rejects.toMatchObject(failure(`${path}: was written under another secret`));
    await expect(stranger.write(file.sha256, forget)).rejects.toMatchObject(failure(`${path}: was written under another secret`));
    await writeFile(path, "matrix-icap-gateway overrides 2 x\n");
    await expect(writerOf().read()).rejects.toMatchObject(failure(`${path}: was written by another version of this program`));
  });

  it("keep up what is from the future, refuse to change it, and tell", async () => {
    const [file, other] = [content(), content()];
    await writerOf({ now: () => Date.now() + HOUR }).write(file.sha256, block);
    await expect(writerOf().write(file.sha256, forget)).rejects.toMatchObject({
      message: expect.stringMatching(/is from the future .* remove line 2 of /),
    });
    await writerOf().write(other.sha256, block);
    expect((await writerOf().read()).problems).toEqual([`${path}: 1 override from the future ignored: a clock is wrong`]);
    const clock = { now: Date.now() };
    const book = await bookOf({ now: () => clock.now });
    expect([kindIn(book, file), kindIn(book, other), problems(book)]).toEqual([
      undefined,
      "block",
      `${path}: 1 override from the future ignored: a clock is wrong`,
    ]);
    clock.now += HOUR;
    await until(() => kindIn(book, file)).toBe("block");
    expect(book.health().degraded).toBe(false);
  });
});

describe("a block that a running gateway has read from the file", () => {
  it.each<[string, string, () => Promise<unknown>]>([
    ["the file vanishes", "lacks 1 override known here, which will be lost at the next start", () => rm(path)],
    ["the file is emptied", "lacks 1 override known here", () => writeFile(path, "")],
    ["the file is overwritten by something else", ":1,2: 2 damaged lines ignored", () => writeFile(path, "some\nthing\n")],
    ["its line is cut", ":2: 1 damaged line ignored", async () => writeFile(path, (await readFile(path)).subarray(0, -5))],
    ["a directory is put in its place", "is no regular file; what was known before stays", async () => rm(path).then(() => mkdir(path))],
    [
      "it is written under another secret",
      "was written under another secret; what was known before stays",
      async () => {
        await rm(path);
        await writerOf({ secret: randomBytes(32) }).write(randomBytes(32), allow);
      },
    ],
    ["it is written by a newer version", "was written by another version", () => writeFile(path, "matrix-icap-gateway overrides 2 x\n")],
  ])("stays when %s, and readiness and log tell", async (_, told, disaster) => {
    const file = content();
    await writerOf().write(file.sha256, block);
    const book = await bookOf();
    const good = await readFile(path);
    await disaster();
    await until(() => problems(book)).toContain(told);
    expect(kindIn(book, file)).toBe("block");
    expect(logged.join("\n")).toContain(told);
    await rm(path, { recursive: true, force: true });
    await writeFile(path, good);
    await until(() => book.health()).toEqual({ degraded: false, problems: [] });
    expect(kindIn(book, file)).toBe("block");
    expect(logged.at(-1)).toBe("overrides: all is well again");
  });

  it("is not lifted by older lines, by another's lines, or by changed ones, and the sound ones beside them count", async () => {
    const [file, other, later] = [content(), content(), content()];
    const writer = writerOf();
    await writer.write(file.sha256, allow);
    const allowed = (await lines())[1] ?? "";
    await writer.write(file.sha256, forget);
    const forgotten = (await lines())[1] ?? "";
    await writer.write(file.sha256, block);
    await writer.write(other.sha256, forget);
    const title = (await lines())[0] ?? "";
    const foreign = (await lines()).find((line) => line.startsWith(`forget:${other.digest}`)) ?? "";
    const book = await bookOf();
    expect(kindIn(book, file)).toBe("block");

    const moved = foreign.replace(other.digest, file.digest);
    const renamed = allowed.replace("allow:", "forget:");
    const [name = "", value = ""] = forgotten.split(" ");
    const changed = `${name} ${value.slice(0, 40)}${value[40] === "A" ? "B" : "A"}${value.slice(41)}`;
    await writerOf({ path: join(directory, "second") }).write(later.sha256, block);
    const sound = (await readFile(join(directory, "second"), "latin1")).split("\n")[1] ?? "";
    await writeFile(join(directory, "third"), [title, allowed, forgotten, moved, renamed, changed, "x".repeat(10_000), sound].join("\n"));
    await rename(join(directory, "third"), path);
    await until(() => kindIn(book, later)).toBe("block");
    expect(kindIn(book, file)).toBe("block");
    expect(problems(book)).toContain(`${path}:4,5,6: 4 damaged lines ignored`);

    // What is damaged may be a block that somebody can restore: it is kept, and told of.
    await writer.write(later.sha256, forget);
    expect(await lines()).toEqual(expect.arrayContaining([moved, renamed, changed]));
    expect((await writer.read()).problems.length).toBe(4);
  });
});

describe("a gateway", () => {
  it("does not start with a file that it can't use", async () => {
    await writerOf().write(content().sha256, block);
    await expect(bookOf({ secret: randomBytes(32) })).rejects.toMatchObject({
      code: "overrides_unusable",
      message: `${path}: was written under another secret`,
    });
    await expect(bookOf({ path: directory })).rejects.toMatchObject({ message: `${directory}: is no regular file` });
    await expect(bookOf({ path: join(path, "x") })).rejects.toMatchObject({
      message: `${path}/x: lies in a file, as if that were a directory`,
    });
  });

  it("starts without a file, and with damaged lines, of which it tells", async () => {
    expect((await bookOf()).health()).toEqual({ degraded: false, problems: [] });
    const file = content();
    await writerOf().write(file.sha256, block);
    await writeFile(path, `${await readFile(path, "latin1")}what is this\n`);
    await chmod(path, 0o600);
    const book = await bookOf();
    expect([kindIn(book, file), problems(book)]).toEqual(["block", `${path}:3: 1 damaged line ignored`]);
  });
});
