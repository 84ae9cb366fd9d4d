import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";
import type OlmModule from "@matrix-org/olm";
import { describe, expect, it } from "vitest";
import { BASE_PATH } from "../../src/http/app.ts";
import { EICAR } from "../../src/scan/canary-samples.ts";
import { encryptFile } from "../support/encrypted-file.ts";
import { FakeScanner } from "../support/fake-scanner.ts";
import { type Harness, type HarnessOptions, startHarness as startAny, TOKEN } from "../support/harness.ts";
import { openUpload, upload } from "../support/upload.ts";

const CLEAN = Buffer.from("a harmless text\n");
const LARGE = randomBytes(3_000_000);
const BOUNDARY = "the-boundary";

interface Part {
  readonly name: string;
  readonly bytes: Uint8Array | string;
  readonly head?: string;
  /** Of the part's Content-Disposition, behind the name. */
  readonly more?: string;
}

const file = (bytes: Uint8Array, more: Partial<Part> = {}): Part => ({ name: "file", bytes, more: '; filename="a.bin"', ...more });
const json = (value: unknown, more: Partial<Part> = {}): Part => ({ name: "body", bytes: JSON.stringify(value), ...more });

function form(parts: readonly Part[], end = `--${BOUNDARY}--\r\n`): Buffer {
  const encoded = parts.map(({ name, bytes, head = "", more = "" }) =>
    Buffer.concat([
      Buffer.from(`--${BOUNDARY}\r\nContent-Disposition: form-data; name="${name}"${more}\r\n${head}\r\n`),
      Buffer.from(bytes),
      Buffer.from("\r\n"),
    ]),
  );
  return Buffer.concat([...encoded, Buffer.from(end)]);
}

async function check(gateway: Harness, body: Uint8Array, more: { chunked?: boolean; token?: string | undefined; type?: string } = {}) {
  const { chunked = false, type = `multipart/form-data; boundary=${BOUNDARY}` } = more;
  const token = "token" in more ? more.token : TOKEN;
  const { status, json } = await upload(`${gateway.url}${BASE_PATH}/scan_file`, body, {
    token,
    chunked,
    headers: { "content-type": type },
  });
  return [status, json] as const;
}

const startHarness = (options: HarnessOptions = {}): Promise<Harness> => startAny({ uploads: {}, ...options });

async function expectNothingLeft(gateway: Harness): Promise<void> {
  await expect.poll(() => gateway.spooled()).toMatchObject({ memory: 0, disk: 0 });
  await expect.poll(() => gateway.uploadsInside()).toBe(0);
}

const IS_CLEAN = [200, { clean: true, info: "File is clean" }];
const IS_NOT = [200, { clean: false, info: "***VIRUS DETECTED***" }];

describe("scan_file", () => {
  it.each(["\r\n--b--\r\n--b\r\n", "--b--\r\n\r\n--b--\r\n", "--b--", "--b\r\n--b--"])(
    "comes to an end with forms that end before they begin: %j",
    async (body) => {
      await using gateway = await startHarness();
      const [status, answer] = await check(gateway, Buffer.from(body), { type: "multipart/form-data; boundary=b" });
      expect([status, answer]).toMatchObject([400, { reason: "MCS_MALFORMED_JSON" }]);
      await expectNothingLeft(gateway);
    },
  );

  it("is one user's to so many at once, however many tokens it has", async () => {
    await using gateway = await startHarness({ admission: { maxPerClient: 2 } });
    gateway.homeserver.addToken("alice-on-her-phone");
    gateway.homeserver.whoami = () => ({ user_id: "@alice:example.org" });
    const release = Promise.withResolvers<void>();
    gateway.scanner.hold = release.promise;
    const first = [TOKEN, "alice-on-her-phone"].map((token) => check(gateway, form([file(randomBytes(100))]), { token }));
    await expect.poll(() => gateway.scanner.begun).toBe(2);
    expect(await check(gateway, form([file(CLEAN)]), { token: "alice-on-her-phone" })).toMatchObject([
      429,
      { errcode: "M_LIMIT_EXCEEDED" },
    ]);
    release.resolve();
    expect(await Promise.all(first)).toEqual([IS_CLEAN, IS_CLEAN]);
    expect(await check(gateway, form([file(CLEAN)]))).toEqual(IS_CLEAN);
  });

  it.each([
    ["small", CLEAN, false],
    ["large", LARGE, false],
    ["in chunks", LARGE, true],
    ["empty", Buffer.alloc(0), false],
    ["with the boundary's beginning in it", Buffer.from(`\r\n--${BOUNDARY.slice(0, -1)}\r\n--`), false],
  ])("says what scanners say of the very bytes: %s", async (_what, bytes, chunked) => {
    await using gateway = await startHarness();
    expect(await check(gateway, form([file(bytes)]), { chunked })).toEqual(IS_CLEAN);
    expect(gateway.scanner.scanned).toEqual([bytes]);
    expect(await check(gateway, form([file(Buffer.concat([bytes, EICAR]))]), { chunked })).toEqual(IS_NOT);
    expect(gateway.homeserver.uploadedBytes).toBe(0);
    await expectNothingLeft(gateway);
  });

  it("takes forms as clients of the web make them", async () => {
    await using gateway = await startHarness();
    const data = new FormData();
    data.set("file", new Blob([Uint8Array.from(EICAR)], { type: "text/plain" }), "note.txt");
    const response = await fetch(`${gateway.url}${BASE_PATH}/scan_file`, {
      method: "POST",
      body: data,
      headers: { authorization: `Bearer ${TOKEN}` },
    });
    expect([response.status, await response.json()]).toEqual(IS_NOT);
    // A field without a file name is a file all the same.
    expect(await check(gateway, form([{ name: "file", bytes: EICAR }]))).toEqual(IS_NOT);
  });

  it.each(["behind", "before"])("decrypts what is encrypted, with the key %s the file", async (place) => {
    await using gateway = await startHarness();
    for (const [bytes, answer] of [
      [LARGE, IS_CLEAN],
      [Buffer.concat([LARGE, EICAR]), IS_NOT],
    ] as const) {
      const sealed = await encryptFile(bytes);
      const described = sealed.file("example.org/x");
      delete described["url"];
      const parts = [
        file(sealed.ciphertext),
        json({ file: described }, { more: '; filename="blob"', head: "Content-Type: application/json\r\n" }),
      ];
      expect(await check(gateway, form(place === "behind" ? parts : parts.toReversed()))).toEqual(answer);
      expect(gateway.scanner.scanned.at(-1)).toEqual(bytes);
    }
    await expectNothingLeft(gateway);
  });

  it("reads an encrypted_body, and answers all that can be wrong with it in one way", async () => {
    await using gateway = await startHarness();
    const olm = createRequire(import.meta.url)("@matrix-org/olm") as typeof OlmModule;
    await olm.init();
    const seal = (value: unknown): unknown => {
      const encryption = new olm.PkEncryption();
      encryption.set_recipient_key(gateway.keys.publicKey);
      return encryption.encrypt(JSON.stringify(value));
    };
    const sealed = await encryptFile(EICAR);
    const body = json({ encrypted_body: seal({ file: sealed.file("example.org/x") }) });
    expect(await check(gateway, form([file(sealed.ciphertext), body]))).toEqual(IS_NOT);
    for (const bad of [{ encrypted_body: seal({ file: [] }) }, { encrypted_body: seal({}) }, { encrypted_body: {} }]) {
      expect(await check(gateway, form([file(sealed.ciphertext), json(bad)]))).toMatchObject([403, { reason: "MCS_BAD_DECRYPTION" }]);
    }
    const other = await encryptFile(CLEAN);
    const answer = await check(gateway, form([file(sealed.ciphertext), json({ file: other.file("example.org/x") })]));
    expect(answer).toMatchObject([400, { reason: "MCS_MEDIA_FAILED_TO_DECRYPT" }]);
    expect(gateway.scanner.scanned).toHaveLength(1);
    await expectNothingLeft(gateway);
  });

  it.each([
    ["no form", CLEAN, { type: "application/json" }],
    ["no boundary", form([file(CLEAN)]), { type: "multipart/form-data" }],
    ["another boundary", form([file(CLEAN)]), { type: "multipart/form-data; boundary=other" }],
    ["no file", form([json({ file: {} })]), {}],
    ["nothing", form([]), {}],
    ["two files", form([file(CLEAN), file(CLEAN)]), {}],
    ["another part", form([file(CLEAN), { name: "other", bytes: "x" }]), {}],
    ["three parts", form([file(CLEAN), json({}), { name: "other", bytes: "x" }]), {}],
    ["a part without a name", Buffer.concat([Buffer.from(`--${BOUNDARY}\r\n\r\nx\r\n`), form([])]), {}],
    ["a coded part", form([file(CLEAN, { head: "Content-Transfer-Encoding: base64\r\n" })]), {}],
    ["a form that is cut off in the file", form([file(CLEAN)], "").subarray(0, -5), {}],
    ["a form without an end", form([file(CLEAN)], ""), {}],
    ["a body that is no JSON", form([file(CLEAN), { name: "body", bytes: "{" }]), {}],
    ["a body without a file", form([file(CLEAN), json({})]), {}],
    ["a long preamble", Buffer.concat([randomBytes(2_000_000), form([file(CLEAN)])]), {}],
    ["a long epilogue", Buffer.concat([form([file(CLEAN)]), randomBytes(2_000_000)]), {}],
    ["a head without an end", Buffer.from(`--${BOUNDARY}\r\nContent-Disposition: ${"x".repeat(2_000_000)}`), {}],
  ])("refuses what is not such a form: %s", async (_what, body, more) => {
    await using gateway = await startHarness();
    expect(await check(gateway, body, more)).toMatchObject([400, { reason: "MCS_MALFORMED_JSON" }]);
    expect(gateway.scanner.scanned).toEqual([]);
    await expectNothingLeft(gateway);
  });

  it("has limits for the file and for what stands beside it", async () => {
    await using gateway = await startHarness({ pipeline: { maxFileSize: 1_000_000 } });
    const tooLarge = [200, { clean: false, info: "The media is too large to be scanned" }];
    expect(await check(gateway, form([file(randomBytes(1_000_000))]))).toEqual(IS_CLEAN);
    for (const chunked of [false, true]) {
      expect(await check(gateway, form([file(randomBytes(1_000_001))]), { chunked })).toEqual(tooLarge);
      expect(await check(gateway, form([file(randomBytes(3_000_000))]), { chunked })).toEqual(tooLarge);
    }
    const body = json({ file: "x".repeat(70_000) });
    expect(await check(gateway, form([file(CLEAN), body]))).toMatchObject([413, { reason: "MCS_MALFORMED_JSON" }]);
    await expectNothingLeft(gateway);
  });

  it("is for users of the homeserver, before a byte is read", async () => {
    await using gateway = await startHarness();
    expect(await check(gateway, form([file(CLEAN)]), { token: undefined })).toMatchObject([401, { reason: "M_MISSING_TOKEN" }]);
    expect(await check(gateway, form([file(CLEAN)]), { token: "stranger" })).toMatchObject([
      401,
      { reason: "M_UNKNOWN_TOKEN", errcode: "M_UNKNOWN_TOKEN" },
    ]);
    const { request, answer } = openUpload(`${gateway.url}${BASE_PATH}/scan_file`, 1000, { headers: { expect: "100-continue" } });
    request.on("continue", () => expect.fail("told to go on"));
    request.flushHeaders();
    expect((await answer).status).toBe(401);
    request.destroy();
    expect(gateway.scanner.begun).toBe(0);
    expect((await gateway.get("scan_file", TOKEN)).status).toBe(405);
  });

  it("asks all: those that decide on uploads, with the user, and those that decide on downloads", async () => {
    const reader = new FakeScanner("reader");
    const dlp = new FakeScanner("dlp", { identities: ["user"] });
    await using gateway = await startHarness({ scanners: [reader], uploads: { scanners: [dlp] } });
    expect(await check(gateway, form([file(CLEAN)]))).toEqual(IS_CLEAN);
    expect(dlp.told).toEqual([{ user: `@${TOKEN}:example.org` }]);
    reader.finds = Buffer.from("unreadable");
    expect(await check(gateway, form([file(Buffer.from("unreadable"))]))).toEqual(IS_NOT);
  });

  it("spares the upload its scan", async () => {
    await using gateway = await startHarness();
    expect(await check(gateway, form([file(CLEAN)]))).toEqual(IS_CLEAN);
    const stored = await upload(`${gateway.url}/_matrix/media/v3/upload`, CLEAN, { token: TOKEN });
    expect(stored.status).toBe(200);
    expect(gateway.scanner.scanned).toHaveLength(1);
  });

  it("forgets a client that goes away in the middle", async () => {
    await using gateway = await startHarness();
    const { request } = openUpload(`${gateway.url}${BASE_PATH}/scan_file`, undefined, {
      token: TOKEN,
      headers: { "content-type": `multipart/form-data; boundary=${BOUNDARY}` },
    });
    request.write(form([file(LARGE)]).subarray(0, 2_000_000));
    await expect.poll(() => gateway.spooled().disk).toBeGreaterThan(0);
    request.destroy();
    await expectNothingLeft(gateway);
    await expect.poll(() => gateway.reports.at(-1)?.error?.code).toBe("client_gone");
    expect(gateway.scanner.begun).toBe(0);
  });
});
