import { randomBytes } from "node:crypto";
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { adoptRequestKeys, KeyFileError, loadRequestKeys, type RequestKeySource, type RequestKeys } from "../../src/crypto/keys.ts";
import { decryptRequestBody } from "../../src/crypto/request-body.ts";
import vectors from "../fixtures/crypto/request-bodies.json" with { type: "json" };

function listeners(): number[] {
  return [process.listenerCount("uncaughtException"), process.listenerCount("unhandledRejection")];
}

/** libolm is loaded with the first pickle, once for this file. */
const listenersBeforeLibolm = listeners();

let directory: string;
let path: string;
const opened: RequestKeys[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "keys-"));
  path = join(directory, "request_secret");
});

afterEach(async () => {
  for (const keys of opened.splice(0)) keys.free();
  await rm(directory, { recursive: true });
});

async function load(source: RequestKeySource, previous: string[] = []): Promise<RequestKeys> {
  const keys = await loadRequestKeys(source, previous);
  opened.push(keys);
  return keys;
}

async function errorOf(source: RequestKeySource, previous: string[] = []): Promise<KeyFileError> {
  const error = await load(source, previous).then(
    () => new Error("loaded"),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(KeyFileError);
  return error as KeyFileError;
}

describe("the secret file", () => {
  it.each([
    ["as the Python scanner's documentation makes it", `${vectors.secret}\n`],
    ["without a line feed", vectors.secret],
    ["with white space around", `\r\n  ${vectors.secret}  \r\n`],
    ["unpadded", vectors.secret.replaceAll("=", "")],
  ])("is read %s", async (_name, content) => {
    await writeFile(path, content, { mode: 0o600 });
    const keys = await load({ secretPath: path });
    expect(keys.publicKey).toBe(vectors.public_key);
    expect(keys.warnings).toEqual([]);
  });

  it("is made once, for its owner alone, in the Python scanner's format", async () => {
    const first = await load({ secretPath: path });
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(await readFile(path, "utf8")).toMatch(/^[A-Za-z0-9+/]{43}=\n$/);
    expect(await readdir(directory)).toEqual(["request_secret"]);
    expect(first.warnings).toEqual([]);
    expect((await load({ secretPath: path })).publicKey).toBe(first.publicKey);
    expect(first.publicKey).toMatch(/^[A-Za-z0-9+/]{43}$/);
  });

  it("is the same for all that start at once", async () => {
    const all = await Promise.all(Array.from({ length: 12 }, () => load({ secretPath: path })));
    expect(new Set(all.map((keys) => keys.publicKey)).size).toBe(1);
    expect(await readdir(directory)).toEqual(["request_secret"]);
  });

  it.each([0o644, 0o666, 0o602, 0o620])("is warned about with mode %o", async (mode) => {
    await writeFile(path, vectors.secret);
    await chmod(path, mode);
    const { warnings } = await load({ secretPath: path });
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain(path);
    expect(warnings[0]).toContain(mode.toString(8));
    expect(warnings[0]).not.toContain(vectors.secret);
  });

  it.each([0o400, 0o600, 0o440])("is not warned about with mode %o", async (mode) => {
    await writeFile(path, vectors.secret);
    await chmod(path, mode);
    expect((await load({ secretPath: path })).warnings).toEqual([]);
  });

  it.each([
    ["empty", ""],
    ["too short", randomBytes(31).toString("base64")],
    ["too long", randomBytes(33).toString("base64")],
    ["of hexadecimal digits", randomBytes(32).toString("hex")],
    ["of raw bytes", Buffer.alloc(32, 0xe9)],
    ["of two secrets", `${vectors.secret}\n${vectors.secret}\n`],
    ["larger than any key", "A".repeat(10_000)],
  ])("is refused when it is %s, by name and without a word of it, and left as it was", async (_name, content) => {
    await writeFile(path, content, { mode: 0o600 });
    const error = await errorOf({ secretPath: path });
    expect(error.path).toBe(path);
    expect(error.message).toBe(`${path}: ${error.reason}`);
    const quoted = String(content).trim().slice(0, 8);
    if (quoted !== "") expect(error.message).not.toContain(quoted);
    expect(await readFile(path)).toEqual(Buffer.from(content));
  });

  it("is refused when it is a directory", async () => {
    await mkdir(path);
    expect((await errorOf({ secretPath: path })).path).toBe(path);
  });

  it("is refused when it can't be made, or hangs in the air", async () => {
    const nowhere = join(directory, "nowhere", "secret");
    expect((await errorOf({ secretPath: nowhere })).message).toContain("can't be made (ENOENT)");
    await symlink(join(directory, "gone"), path);
    expect((await errorOf({ secretPath: path })).path).toBe(path);
    expect(await readdir(directory)).toEqual(["request_secret"]);
  });

  it("of a previous key is never made", async () => {
    await writeFile(path, vectors.secret, { mode: 0o600 });
    const previous = join(directory, "previous");
    expect((await errorOf({ secretPath: path }, [previous])).path).toBe(previous);
    expect(await readdir(directory)).toEqual(["request_secret"]);
  });

  it("of a previous key is warned about as well", async () => {
    const previous = join(directory, "previous");
    await writeFile(previous, vectors.secret);
    await chmod(previous, 0o644);
    expect((await load({ secretPath: path }, [previous])).warnings.join()).toContain(previous);
  });
});

describe("the legacy pickle", () => {
  const { pickle, pickle_key: pickleKey, public_key: publicKey, encrypted_body: body } = vectors.pickle;

  it("is read, with a line feed or without", async () => {
    for (const content of [pickle, `${pickle}\n`]) {
      await writeFile(path, content, { mode: 0o600 });
      const keys = await load({ picklePath: path, pickleKey });
      expect(keys.publicKey).toBe(publicKey);
      expect(decryptRequestBody(keys, body)).toEqual(vectors.plaintext);
    }
  });

  it("is made when it is not there, and opens with its key alone", async () => {
    const made = await load({ picklePath: path, pickleKey: "one" });
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect((await load({ picklePath: path, pickleKey: "one" })).publicKey).toBe(made.publicKey);
    const error = await errorOf({ picklePath: path, pickleKey: "another" });
    expect(error.message).toContain(path);
    expect(error.message).not.toContain("another");
  });

  it("is refused when it is damaged", async () => {
    for (const content of ["", "not a pickle", pickle.slice(0, -4), `A${pickle.slice(1)}`]) {
      await writeFile(path, content, { mode: 0o600 });
      expect((await errorOf({ picklePath: path, pickleKey })).path).toBe(path);
    }
  });
});

describe("derived secrets", () => {
  it("stay the same over restarts and differ by label and by key", async () => {
    await writeFile(path, vectors.secret, { mode: 0o600 });
    const first = (await load({ secretPath: path })).deriveSecret("verdicts");
    const again = (await load({ secretPath: path })).deriveSecret("verdicts");
    const label = (await load({ secretPath: path })).deriveSecret("audit");
    const key = (await load({ secretPath: join(directory, "other") })).deriveSecret("verdicts");
    expect(first).toHaveLength(32);
    expect(again).toEqual(first);
    expect(label).not.toEqual(first);
    expect(key).not.toEqual(first);
    expect(first).not.toEqual(Buffer.from(vectors.secret, "base64"));
  });
});

describe("libolm", () => {
  it("leaves errors that nobody caught to the process", async () => {
    await load({ picklePath: path, pickleKey: "any" });
    expect(listeners()).toEqual(listenersBeforeLibolm);
  });
});

describe("keys that another process has loaded", () => {
  it("are the same: they decrypt, are told and are derived from as in that one, previous ones too", async () => {
    const { pickle, pickle_key: pickleKey, encrypted_body: body } = vectors.pickle;
    await writeFile(path, vectors.secret, { mode: 0o600 });
    const picklePath = join(directory, "pickle");
    await writeFile(picklePath, pickle, { mode: 0o600 });
    const loaded = await load({ picklePath, pickleKey }, [path]);
    const secrets = structuredClone(loaded.secrets());
    const adopted = adoptRequestKeys(secrets);
    opened.push(adopted);
    expect(adopted.publicKey).toBe(loaded.publicKey);
    expect(adopted.deriveSecret("verdicts")).toEqual(loaded.deriveSecret("verdicts"));
    expect(adopted.warnings).toEqual([]);
    for (const encrypted of [body, vectors.bodies[0]?.encrypted_body]) {
      expect(decryptRequestBody(adopted, encrypted)).toEqual(decryptRequestBody(loaded, encrypted));
    }
    expect(secrets.length).toBe(2);
    expect(() => adoptRequestKeys([])).toThrow(RangeError);
  });
});
