import { createCipheriv, createHmac, createPublicKey, diffieHellman, generateKeyPairSync, hkdfSync, randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadRequestKeys, type RequestKeys } from "../../src/crypto/keys.ts";
import { decryptRequestBody } from "../../src/crypto/request-body.ts";
import { GatewayError } from "../../src/errors.ts";
import vectors from "../fixtures/crypto/request-bodies.json" with { type: "json" };

interface EncryptedBody {
  readonly ciphertext: string;
  readonly mac: string;
  readonly ephemeral: string;
}

let directory: string;
let keys: RequestKeys;
const opened: RequestKeys[] = [];

async function keysOf(secret: string, previous: string[] = []): Promise<RequestKeys> {
  const paths = await Promise.all(
    [secret, ...previous].map(async (content) => {
      const path = join(directory, randomBytes(6).toString("hex"));
      await writeFile(path, content, { mode: 0o600 });
      return path;
    }),
  );
  const loaded = await loadRequestKeys({ secretPath: paths[0] ?? "" }, paths.slice(1));
  opened.push(loaded);
  return loaded;
}

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "request-body-"));
  keys = await keysOf(vectors.secret);
});

afterAll(async () => {
  for (const loaded of opened) loaded.free();
  await rm(directory, { recursive: true });
});

/** PkEncryption by hand, so that a test can put anything into it: bytes that are no JSON, padding that is none. */
function encrypt(publicKey: string, plaintext: Buffer, padding = true): EncryptedBody {
  const ephemeral = generateKeyPairSync("x25519");
  const spki = Buffer.concat([Buffer.from("302a300506032b656e032100", "hex"), Buffer.from(publicKey, "base64")]);
  const shared = diffieHellman({
    privateKey: ephemeral.privateKey,
    publicKey: createPublicKey({ key: spki, format: "der", type: "spki" }),
  });
  const derived = Buffer.from(hkdfSync("sha256", shared, "", "", 80));
  const cipher = createCipheriv("aes-256-cbc", derived.subarray(0, 32), derived.subarray(64)).setAutoPadding(padding);
  const mac = createHmac("sha256", derived.subarray(32, 64)).update("").digest().subarray(0, 8);
  return {
    ciphertext: Buffer.concat([cipher.update(plaintext), cipher.final()]).toString("base64"),
    mac: mac.toString("base64"),
    ephemeral: ephemeral.publicKey.export({ type: "spki", format: "der" }).subarray(12).toString("base64"),
  };
}

function encryptText(text: string): EncryptedBody {
  return encrypt(keys.publicKey, Buffer.from(text));
}

function good(): EncryptedBody {
  return encryptText('{"file":{}}');
}

/** All that a client could tell two refusals apart by. */
function refusalOf(with_: RequestKeys, body: unknown): unknown {
  try {
    return { answered: decryptRequestBody(with_, body) };
  } catch (error) {
    if (!(error instanceof GatewayError)) throw error;
    return { code: error.code, status: error.status, headers: error.headers, body: error.body("scanner"), message: error.message };
  }
}

const REFUSAL = {
  code: "bad_decryption",
  status: 403,
  headers: {},
  body: { reason: "MCS_BAD_DECRYPTION", info: "The encrypted body could not be decrypted" },
  message: "bad_decryption",
};

describe("bodies that others encrypted", () => {
  it.each(vectors.bodies)("$made_by", ({ encrypted_body }) => {
    expect(decryptRequestBody(keys, encrypted_body)).toEqual(vectors.plaintext);
  });

  it("are read in every spelling of base64", () => {
    const [body] = vectors.bodies;
    if (body === undefined) throw new Error("no vector");
    for (const encoding of ["base64", "base64url"] as const) {
      const spelled = Object.fromEntries(
        Object.entries(body.encrypted_body).map(([name, text]) => [name, Buffer.from(text, "base64").toString(encoding)]),
      );
      expect(decryptRequestBody(keys, { extra: 1, ...spelled })).toEqual(vectors.plaintext);
    }
  });

  it("may be as long as 16 KiB of ciphertext", () => {
    const text = JSON.stringify({ text: "x".repeat(16 * 1024 - 12) });
    expect(text).toHaveLength(16 * 1024 - 1);
    expect(decryptRequestBody(keys, encryptText(text))).toEqual(JSON.parse(text));
  });

  it("may hold any Unicode", () => {
    expect(decryptRequestBody(keys, encryptText('{"name":"Grüße 🙈 \\u0000"}'))).toEqual({ name: "Grüße 🙈 \0" });
  });
});

describe("key rotation", () => {
  const fresh = randomBytes(32).toString("base64");

  it("still reads bodies encrypted to a previous key", async () => {
    const rotated = await keysOf(fresh, [randomBytes(32).toString("base64"), vectors.secret]);
    expect(rotated.publicKey).not.toBe(vectors.public_key);
    for (const { encrypted_body } of vectors.bodies) expect(decryptRequestBody(rotated, encrypted_body)).toEqual(vectors.plaintext);
    expect(decryptRequestBody(rotated, encrypt(rotated.publicKey, Buffer.from("{}")))).toEqual({});
  });

  it("does not read them once the key is gone", async () => {
    const rotated = await keysOf(fresh);
    for (const { encrypted_body } of vectors.bodies) expect(refusalOf(rotated, encrypted_body)).toEqual(REFUSAL);
  });

  it("tries every key on what the current one decrypts to nonsense, so that time does not tell", async () => {
    const rotated = await keysOf(fresh, [vectors.secret]);
    const nonsense = encrypt(rotated.publicKey, Buffer.from("no JSON"));
    const part = (name: keyof EncryptedBody): Buffer => Buffer.from(nonsense[name], "base64");
    const reads: string[] = [];
    rotated.decrypt({ ciphertext: part("ciphertext"), mac: part("mac"), ephemeral: part("ephemeral") }, (padded) => {
      reads.push(padded.toString());
      return undefined;
    });
    expect(reads).toEqual([`no JSON${"\t".repeat(9)}`, ""]);
    expect(refusalOf(rotated, nonsense)).toEqual(REFUSAL);
  });
});

describe("whatever is wrong has one answer", () => {
  it.each<[string, () => unknown]>([
    ["nothing", () => undefined],
    ["null", () => null],
    ["a string", () => "AAAA"],
    ["an array", () => [good()]],
    ["an empty object", () => ({})],
    ["no ciphertext", () => ({ ...good(), ciphertext: undefined })],
    ["no MAC", () => ({ ...good(), mac: null })],
    ["an ephemeral key that is no string", () => ({ ...good(), ephemeral: 7 })],
    ["an empty ciphertext", () => ({ ...good(), ciphertext: "" })],
    ["a ciphertext that is no base64", () => ({ ...good(), ciphertext: "!!!!" })],
    ["junk in the base64", () => ({ ...good(), ciphertext: `${good().ciphertext}\n` })],
    ["a ciphertext of no whole blocks", () => ({ ...good(), ciphertext: Buffer.alloc(17).toString("base64") })],
    ["a ciphertext of more than 16 KiB", () => encryptText(JSON.stringify({ text: "x".repeat(16 * 1024) }))],
    ["a MAC of 32 bytes", () => ({ ...good(), mac: Buffer.alloc(32).toString("base64") })],
    ["another MAC", () => ({ ...good(), mac: Buffer.alloc(8).toString("base64") })],
    ["another ephemeral key", () => ({ ...good(), ephemeral: good().ephemeral })],
    ["an ephemeral key of zeros", () => ({ ...good(), ephemeral: Buffer.alloc(32).toString("base64") })],
    ["padding that is none", () => encrypt(keys.publicKey, Buffer.from('{"file":{}}     '), false)],
    ["padding of more than a block", () => encrypt(keys.publicKey, Buffer.from('{"file":{}}'.padEnd(64)), false)],
    ["padding of bytes that differ", () => encrypt(keys.publicKey, Buffer.from('{"file":{}}\x01\x02\x03\x04\x05'), false)],
    ["a whole block of padding too large", () => encrypt(keys.publicKey, Buffer.alloc(16, 17), false)],
    ["text that is no JSON", () => encryptText("hello")],
    ["no text at all", () => encryptText("")],
    ["JSON cut short", () => encryptText('{"file":')],
    ["a JSON array", () => encryptText("[]")],
    ["a JSON string", () => encryptText('"file"')],
    ["JSON null", () => encryptText("null")],
    ["invalid UTF-8 in a JSON string", () => encrypt(keys.publicKey, Buffer.from('{"file":"a long enough text \xff"}', "latin1"))],
    ["JSON, then a NUL and more than a block", () => encryptText(`{}\0${"x".repeat(40)}`)],
  ])("%s", (_name, body) => {
    expect(refusalOf(keys, body())).toEqual(REFUSAL);
  });

  it("even where the sender changes one byte after the other: no padding oracle", () => {
    const text = JSON.stringify({ file: { k: "a secret that the sender wants to know" } });
    const body = encryptText(text);
    const ciphertext = Buffer.from(body.ciphertext, "base64");
    const answers = new Set<string>();
    for (let at = 0; at < ciphertext.length; at += 1) {
      for (const change of [0x01, 0x10, 0x80, 0xff]) {
        const changed = Buffer.from(ciphertext);
        changed.writeUInt8(changed.readUInt8(at) ^ change, at);
        answers.add(JSON.stringify(refusalOf(keys, { ...body, ciphertext: changed.toString("base64") })));
      }
    }
    expect([...answers]).toEqual([JSON.stringify(REFUSAL)]);
  });

  it("even over all 256 guesses of a last byte, where one has right padding", () => {
    const body = encryptText(JSON.stringify({ file: "sixteen bytes or more of plaintext" }));
    const block = Buffer.from(body.ciphertext, "base64").subarray(0, 16);
    const answers = new Set<string>();
    for (let guess = 0; guess < 256; guess += 1) {
      const forged = Buffer.concat([Buffer.alloc(15), Buffer.from([guess]), block]);
      answers.add(JSON.stringify(refusalOf(keys, { ...body, ciphertext: forged.toString("base64") })));
    }
    expect([...answers]).toEqual([JSON.stringify(REFUSAL)]);
  });
});
