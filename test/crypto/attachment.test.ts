import { createCipheriv, createDecipheriv, createHash, randomBytes, webcrypto } from "node:crypto";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { assertCounterRange, createAttachmentDecryptor, parseEncryptedFile } from "../../src/crypto/attachment.ts";
import { GatewayError } from "../../src/errors.ts";
import vectors from "../fixtures/crypto/attachments.json" with { type: "json" };

const EICAR = Buffer.from(["X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD", "-ANTIVIRUS-TEST-FILE!$H+H*"].join(""));

function validFile(): Record<string, unknown> {
  return {
    v: "v2",
    url: "mxc://example.org/abc",
    key: { alg: "A256CTR", ext: true, k: Buffer.alloc(32, 1).toString("base64url"), key_ops: ["encrypt", "decrypt"], kty: "oct" },
    iv: Buffer.alloc(16, 2).toString("base64"),
    hashes: { sha256: Buffer.alloc(32, 3).toString("base64") },
  };
}

/** The valid file with one value, named by its path, replaced. */
function withValue(path: string, value: unknown): unknown {
  const file = validFile();
  const keys = path.split(".");
  const last = keys.pop() ?? "";
  let object = file;
  for (const key of keys) object = object[key] as Record<string, unknown>;
  object[last] = value;
  return file;
}

function codeOf(work: () => unknown): string | undefined {
  try {
    work();
    return undefined;
  } catch (error) {
    return error instanceof GatewayError ? error.code : String(error);
  }
}

function attachmentOf(iv: Buffer, key = Buffer.alloc(32, 1)): { key: Buffer; iv: Buffer; sha256: Buffer } {
  return { key, iv, sha256: Buffer.alloc(32) };
}

/** An IV whose block counter starts at these eight bytes. */
function ivAt(hex: string): Buffer {
  return Buffer.from(`0011223344556677${hex}`, "hex");
}

describe("attachments that others encrypted", () => {
  it.each(vectors)("$made_by: $name", ({ file, ciphertext, plaintext }) => {
    const { url, attachment } = parseEncryptedFile(file);
    const bytes = Buffer.from(ciphertext, "base64");
    expect(url).toBe(file.url);
    expect(createHash("sha256").update(bytes).digest()).toEqual(attachment.sha256);
    expect(() => assertCounterRange(attachment, bytes.length)).not.toThrow();
    expect(createAttachmentDecryptor(attachment).update(bytes).toString("base64")).toBe(plaintext);
  });
});

describe("parseEncryptedFile", () => {
  it("takes keys in any order, more key_ops, and keys it does not know", () => {
    const file = { mimetype: "image/png", ...validFile() };
    const entries = Object.entries(file).toReversed();
    expect(parseEncryptedFile(Object.fromEntries(entries)).attachment).toEqual({
      key: Buffer.alloc(32, 1),
      iv: Buffer.alloc(16, 2),
      sha256: Buffer.alloc(32, 3),
    });
    expect(codeOf(() => parseEncryptedFile(withValue("key.key_ops", ["wrapKey", "decrypt", "encrypt"])))).toBeUndefined();
  });

  it.each([undefined, null, "file", 1, true, [], [validFile()], {}])("calls %j malformed", (value) => {
    expect(codeOf(() => parseEncryptedFile(value))).toBe("malformed_request");
  });

  it.each([
    ["v", undefined],
    ["v", "v1"],
    ["v", 2],
    ["url", null],
    ["url", {}],
    ["iv", 7],
    ["key", "k"],
    ["key", null],
    ["key.k", ["AAAA"]],
    ["key.alg", "A128CTR"],
    ["key.kty", "RSA"],
    ["key.ext", false],
    ["key.ext", "true"],
    ["key.key_ops", undefined],
    ["key.key_ops", "encrypt decrypt"],
    ["key.key_ops", ["decrypt"]],
    ["key.key_ops", ["encrypt", "decrypt", 1]],
    ["hashes", "sha256"],
    ["hashes", []],
    ["hashes.sha256", undefined],
  ])("calls %s = %j malformed", (path, value) => {
    expect(codeOf(() => parseEncryptedFile(withValue(path, value)))).toBe("malformed_request");
  });

  it.each([
    ["key.k", Buffer.alloc(31).toString("base64url")],
    ["key.k", Buffer.alloc(33).toString("base64url")],
    ["key.k", `${Buffer.alloc(32).toString("base64url")}!`],
    ["key.k", ""],
    ["iv", Buffer.alloc(8).toString("base64")],
    ["iv", ` ${Buffer.alloc(16).toString("base64")}`],
    ["hashes.sha256", Buffer.alloc(20).toString("base64")],
    ["hashes.sha256", Buffer.alloc(32).toString("hex")],
  ])("says that the media can't be decrypted for %s = %j", (path, value) => {
    expect(codeOf(() => parseEncryptedFile(withValue(path, value)))).toBe("failed_to_decrypt");
  });

  it("quotes no key in its errors", () => {
    const secret = randomBytes(31).toString("base64url");
    try {
      parseEncryptedFile(withValue("key.k", secret));
    } catch (error) {
      expect(JSON.stringify([error, (error as Error).message, (error as GatewayError).body("matrix")])).not.toContain(secret);
    }
    expect.assertions(1);
  });
});

describe("the counter's range", () => {
  it.each([
    ["0000000000000000", Number.MAX_SAFE_INTEGER],
    ["ffffffffffffffff", 0],
    ["ffffffffffffffff", 16],
    ["fffffffffffffff0", 256],
  ])("allows a counter from %s over %d bytes", (hex, size) => {
    expect(codeOf(() => assertCounterRange(attachmentOf(ivAt(hex)), size))).toBeUndefined();
  });

  it.each([
    ["ffffffffffffffff", 17],
    ["fffffffffffffff0", 257],
    ["ffffffffffff0000", Number.MAX_SAFE_INTEGER],
  ])("refuses a counter from %s over %d bytes", (hex, size) => {
    expect(codeOf(() => assertCounterRange(attachmentOf(ivAt(hex)), size))).toBe("failed_to_decrypt");
  });

  it("refuses a file that is EICAR to a browser and noise to OpenSSL", async () => {
    const key = randomBytes(32);
    // The first block is counted with 2^64 - 1; the second one is where the two part.
    const iv = Buffer.concat([randomBytes(8), Buffer.alloc(8, 0xff)]);
    const browserKey = await webcrypto.subtle.importKey("raw", key, "AES-CTR", false, ["encrypt", "decrypt"]);
    const browser = { name: "AES-CTR", counter: iv, length: 64 };
    const ciphertext = Buffer.from(await webcrypto.subtle.encrypt(browser, browserKey, EICAR));

    const seenByBrowser = Buffer.from(await webcrypto.subtle.decrypt(browser, browserKey, ciphertext));
    const seenByOpenssl = createDecipheriv("aes-256-ctr", key, iv).update(ciphertext);
    expect(seenByBrowser.equals(EICAR)).toBe(true);
    expect(seenByOpenssl.equals(EICAR)).toBe(false);

    expect(codeOf(() => assertCounterRange(attachmentOf(iv, key), ciphertext.length))).toBe("failed_to_decrypt");
    expect(codeOf(() => createAttachmentDecryptor(attachmentOf(iv, key)).update(ciphertext))).toBe("failed_to_decrypt");
  });

  it("is kept by the decryptor over all pieces together, when nobody knew the size", () => {
    const decryptor = createAttachmentDecryptor(attachmentOf(ivAt("fffffffffffffffe")));
    expect(decryptor.update(Buffer.alloc(31))).toHaveLength(31);
    expect(decryptor.update(Buffer.alloc(1))).toHaveLength(1);
    expect(codeOf(() => decryptor.update(Buffer.alloc(1)))).toBe("failed_to_decrypt");
  });
});

describe("createAttachmentDecryptor", () => {
  it.each([0, 1, 100, 65_536, 200_000])("gives the plaintext of %d bytes in memory that nothing else is in", (size) => {
    const plaintext = createAttachmentDecryptor(attachmentOf(ivAt("0000000000000000"))).update(Buffer.alloc(size));
    expect(plaintext).toHaveLength(size);
    expect(plaintext.buffer.byteLength).toBe(size);
  });

  it("gives the same plaintext however the ciphertext is cut", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        fc.uint8Array({ minLength: 8, maxLength: 8 }),
        fc.array(fc.uint8Array({ maxLength: 70 }), { maxLength: 12 }),
        (key, nonce, pieces) => {
          const iv = Buffer.concat([nonce, Buffer.alloc(8)]);
          const cipher = createCipheriv("aes-256-ctr", key, iv);
          const decryptor = createAttachmentDecryptor(attachmentOf(iv, Buffer.from(key)));
          const out = pieces.map((piece) => decryptor.update(cipher.update(piece)));
          expect(out.map((piece) => piece.length)).toEqual(pieces.map((piece) => piece.length));
          expect(Buffer.concat(out)).toEqual(Buffer.concat(pieces));
        },
      ),
    );
  });
});
