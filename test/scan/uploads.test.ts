import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { GatewayError } from "../../src/errors.ts";
import { EICAR } from "../../src/scan/canary-samples.ts";
import { FakeScanner } from "../support/fake-scanner.ts";
import { type Harness, type HarnessOptions, startHarness as startAny, TOKEN } from "../support/harness.ts";
import { type UploadOptions, openUpload, upload } from "../support/upload.ts";

const CLEAN = Buffer.from("a harmless text\n");
const LARGE = randomBytes(5_000_000);
const PATH = "/_matrix/media/v3/upload";

const send = (gateway: Harness, bytes: Uint8Array, more: UploadOptions & { readonly path?: string } = {}) =>
  upload(`${gateway.url}${more.path ?? PATH}`, bytes, { token: TOKEN, ...more });

const startHarness = (options: HarnessOptions = {}): Promise<Harness> => startAny({ uploads: {}, ...options });

async function expectNothingLeft(gateway: Harness): Promise<void> {
  await expect.poll(() => gateway.spooled()).toMatchObject({ memory: 0, disk: 0 });
  await expect.poll(() => gateway.uploadsInside()).toBe(0);
}

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

describe("a clean upload", () => {
  it.each([
    ["small", CLEAN, {}],
    ["large, scanned while it comes", LARGE, {}],
    ["empty", Buffer.alloc(0), {}],
    ["in chunks, without a length", LARGE, { chunked: true }],
  ])("reaches the homeserver unchanged: %s", async (_what, bytes, how) => {
    await using gateway = await startHarness();
    const answer = await send(gateway, bytes, {
      ...how,
      path: `${PATH}?filename=${encodeURIComponent("a/b&c=ü.txt")}`,
      headers: { "content-type": 'text/plain;  charset="utf-8"', "x-forwarded-test": "192.0.2.7" },
    });
    expect([answer.status, Object.keys(answer.json)]).toEqual([200, ["content_uri"]]);
    const [stored] = gateway.homeserver.uploads;
    expect(stored).toMatchObject({ method: "POST", size: bytes.length, sha256: sha256(bytes) });
    expect(new URL(stored?.path ?? "", "http://x").searchParams.get("filename")).toBe("a/b&c=ü.txt");
    expect(stored?.headers).toMatchObject({
      "content-type": "text/plain; charset=utf-8",
      "content-length": String(bytes.length),
      authorization: `Bearer ${TOKEN}`,
      "x-forwarded-test": "192.0.2.7",
    });
    expect(gateway.scanner.scanned).toHaveLength(1);
    expect(answer.headers).toMatchObject({ "access-control-allow-origin": "*", "cache-control": "private, no-store" });
    await expectNothingLeft(gateway);
  });

  it.each(["v3", "v1", "r0"])("goes to the same version of the API: %s", async (api) => {
    await using gateway = await startHarness();
    expect((await send(gateway, CLEAN, { path: `/_matrix/media/${api}/upload` })).status).toBe(200);
    expect(gateway.homeserver.uploads[0]?.path).toBe(`/_matrix/media/${api}/upload`);
    expect(gateway.homeserver.uploads[0]?.headers["content-type"]).toBe("application/octet-stream");
  });

  it("goes to a URI that was made before", async () => {
    await using gateway = await startHarness();
    const created = await send(gateway, Buffer.alloc(0), { path: "/_matrix/media/v1/create" });
    expect(created.status).toBe(200);
    expect(created.json).toMatchObject({ unused_expires_at: expect.any(Number) });
    const uri = String(created.json["content_uri"]).slice("mxc://".length);
    const put = { path: `${PATH}/${uri}`, method: "PUT" } as const;
    expect((await send(gateway, EICAR, put)).status).toBe(403);
    expect(await send(gateway, CLEAN, put)).toMatchObject({ status: 200, json: {} });
    expect(await send(gateway, CLEAN, put)).toMatchObject({ status: 409, json: { errcode: "M_CANNOT_OVERWRITE_MEDIA" } });
    const unknown = { ...put, path: `${PATH}/example.org/unknown` };
    expect(await send(gateway, CLEAN, unknown)).toMatchObject({ status: 404, json: { errcode: "M_NOT_FOUND" } });
    const malformed = { ...put, path: `${PATH}/example.org/..%2fx` };
    expect(await send(gateway, CLEAN, malformed)).toMatchObject({ status: 400, json: { errcode: "M_INVALID_PARAM" } });
    expect(gateway.homeserver.uploads.map(({ method, path }) => `${method} ${path}`)).toEqual([`PUT ${PATH}/${uri}`]);
    expect((await gateway.get(`download/${uri}`, TOKEN)).body).toEqual(CLEAN);
    expect(gateway.scanner.scanned.map((bytes) => bytes.length)).toEqual([EICAR.length, CLEAN.length]);
  });

  it("is known when it is asked for: its first download is not scanned, but compared", async () => {
    await using gateway = await startHarness();
    const uri = String((await send(gateway, LARGE)).json["content_uri"]).slice("mxc://".length);
    expect((await gateway.get(`download/${uri}`, TOKEN)).body.equals(LARGE)).toBe(true);
    expect(gateway.scanner.begun).toBe(1);
    gateway.homeserver.put(uri.split("/")[1] ?? "", { bytes: Buffer.concat([LARGE.subarray(0, -68), EICAR]) });
    expect((await gateway.get(`scan/${uri}`, "nobody")).status).toBe(401);
    // Its first pieces are what was scanned, and have left by the time that the changed one comes.
    await expect(gateway.get(`download/${uri}`, TOKEN)).rejects.toThrow();
    expect((await gateway.get(`download/${uri}`, TOKEN)).status).toBe(403);
  });

  it("is not scanned where the same content is known already", async () => {
    await using gateway = await startHarness();
    await gateway.get(`download/${gateway.put(CLEAN)}`, TOKEN);
    expect((await send(gateway, CLEAN)).status).toBe(200);
    expect((await send(gateway, CLEAN, { chunked: true })).status).toBe(200);
    expect(gateway.scanner.scanned).toHaveLength(1);
    expect(gateway.homeserver.uploads).toHaveLength(2);
  });
});

describe("who decides on uploads", () => {
  it("services for uploads alone say nothing of downloads, but what others said with them holds there", async () => {
    const antivirus = new FakeScanner("antivirus");
    const dlp = new FakeScanner("dlp", { identities: ["user", "client_ip"] });
    dlp.finds = Buffer.from("secret");
    await using gateway = await startHarness({ scanners: [antivirus], uploads: { scanners: [antivirus, dlp] } });
    const uri = String((await send(gateway, CLEAN)).json["content_uri"]).slice("mxc://".length);
    expect(dlp.told).toEqual([{ clientAddress: "127.0.0.1", user: `@${TOKEN}:example.org` }]);
    gateway.homeserver.addToken("bob");
    expect((await gateway.get(`download/${uri}`, "bob")).body).toEqual(CLEAN);
    const again = gateway.put(CLEAN);
    expect((await gateway.get(`download/${again}`, TOKEN)).status).toBe(200);
    const second = String((await send(gateway, CLEAN)).json["content_uri"]).slice("mxc://".length);
    expect((await gateway.get(`download/${second}`, "bob")).status).toBe(200);
    expect([antivirus.begun, dlp.begun]).toEqual([1, 1]);

    const secret = Buffer.from("this is secret");
    expect(await send(gateway, secret)).toMatchObject({ status: 403, json: { errcode: "M_FORBIDDEN" } });
    expect((await gateway.get(`download/${gateway.put(secret)}`, TOKEN)).status).toBe(200);
    // For downloads the homeserver is not asked whose token it is.
    expect(gateway.homeserver.requests.filter(({ path }) => path.endsWith("/whoami"))).toHaveLength(3);
  });

  it("services for downloads alone are not asked, and their verdict is still to be had", async () => {
    const antivirus = new FakeScanner("antivirus");
    const reader = new FakeScanner("reader");
    await using gateway = await startHarness({ scanners: [antivirus, reader], uploads: { scanners: [antivirus] } });
    const uri = String((await send(gateway, CLEAN)).json["content_uri"]).slice("mxc://".length);
    expect(reader.begun).toBe(0);
    expect((await gateway.get(`download/${uri}`, TOKEN)).status).toBe(200);
    expect(reader.begun).toBe(1);
  });

  it("a user's verdict is no other user's", async () => {
    const dlp = new FakeScanner("dlp", { identities: ["user"] });
    await using gateway = await startHarness({ scanners: [dlp] });
    gateway.homeserver.addToken("bob");
    for (const token of [TOKEN, "bob", TOKEN]) expect((await send(gateway, CLEAN, { token })).status).toBe(200);
    expect(dlp.begun).toBe(2);
    const uri = String((await send(gateway, CLEAN)).json["content_uri"]).slice("mxc://".length);
    expect((await gateway.get(`download/${uri}`, TOKEN)).status).toBe(200);
    expect(dlp.begun).toBe(2);
    gateway.homeserver.addToken("carol");
    expect((await gateway.get(`download/${uri}`, "carol")).status).toBe(200);
    expect(dlp.begun).toBe(3);
  });
});

describe("an upload that is refused never reaches the homeserver", () => {
  it.each([
    ["small", EICAR, {}, 1],
    // Its scan has begun before anybody can tell that it is known.
    ["large", Buffer.concat([LARGE, EICAR]), {}, 2],
    ["in chunks", Buffer.concat([LARGE, EICAR]), { chunked: true }, 1],
  ])("infected: %s", async (_what, bytes, how, scans) => {
    await using gateway = await startHarness();
    for (const round of ["scanned", "known"]) {
      const answer = await send(gateway, bytes, how);
      expect(answer, round).toMatchObject({
        status: 403,
        json: {
          errcode: "M_FORBIDDEN",
          error: "The file is blocked: Eicar",
          reason: "MCS_MEDIA_NOT_CLEAN",
          info: "The file is blocked: Eicar",
        },
      });
    }
    expect(gateway.scanner.scanned).toHaveLength(scans);
    expect([gateway.homeserver.uploads, gateway.homeserver.uploadedBytes]).toEqual([[], 0]);
    await expectNothingLeft(gateway);
  });

  it("for what scanners, lists and operators say of it", async () => {
    await using gateway = await startHarness({ policy: { blockedTypes: ["image/png"], onModified: "deliver" } });
    const { scanner } = gateway;
    const refused = async (bytes: Buffer): Promise<unknown> => {
      const { status, json, headers } = await send(gateway, bytes);
      return [status, json["errcode"], json["reason"], headers["retry-after"]];
    };
    const png = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==", "base64");
    expect(await refused(png)).toEqual([403, "M_FORBIDDEN", "MCS_MIME_TYPE_FORBIDDEN", undefined]);
    scanner.unscannable = "encrypted";
    expect(await refused(CLEAN)).toEqual([403, "M_FORBIDDEN", "MCS_MEDIA_NOT_CLEAN", undefined]);
    scanner.unscannable = undefined;
    // What a scanner made of it is never uploaded in its stead, even where downloads get it.
    scanner.replaces = (bytes) => (bytes.includes("harmless") ? Buffer.from("another harmful text") : undefined);
    expect(await refused(CLEAN)).toEqual([403, "M_FORBIDDEN", "MCS_MEDIA_NOT_CLEAN", undefined]);
    expect(scanner.offered.at(-1)?.place).toBe(false);
    scanner.replaces = undefined;
    scanner.failure = new GatewayError("scanner_unavailable");
    expect(await refused(CLEAN)).toEqual([503, "M_UNKNOWN", "M_UNKNOWN", "10"]);
    scanner.failure = undefined;
    gateway.overrides.set("block", CLEAN);
    expect(await refused(CLEAN)).toEqual([403, "M_FORBIDDEN", "MCS_MEDIA_NOT_CLEAN", undefined]);
    expect(gateway.homeserver.uploads).toEqual([]);
    gateway.overrides.set("allow", EICAR);
    expect((await send(gateway, EICAR)).status).toBe(200);
  });

  it("unless the operator lets pass what nobody could scan", async () => {
    await using gateway = await startHarness({ policy: { onUnavailable: "allow" } });
    gateway.scanner.failure = new GatewayError("scanner_unavailable");
    const uri = String((await send(gateway, CLEAN)).json["content_uri"]).slice("mxc://".length);
    expect(gateway.homeserver.uploads).toHaveLength(1);
    gateway.scanner.failure = undefined;
    await gateway.get(`download/${uri}`, TOKEN);
    expect(gateway.scanner.scanned).toHaveLength(1);
  });

  it("larger than what is scanned, or than the homeserver takes of this user, announced or not", async () => {
    await using gateway = await startHarness({ pipeline: { maxFileSize: 3_000_000 } });
    const TOO_LARGE = { status: 413, json: { errcode: "M_TOO_LARGE" } };
    expect(await send(gateway, LARGE)).toMatchObject(TOO_LARGE);
    expect(await send(gateway, LARGE, { chunked: true })).toMatchObject(TOO_LARGE);
    gateway.homeserver.addToken("bob");
    gateway.homeserver.maxUploadSize = 1000;
    expect(await send(gateway, randomBytes(1001), { token: "bob" })).toMatchObject(TOO_LARGE);
    expect(await send(gateway, randomBytes(1001), { token: "bob", chunked: true })).toMatchObject(TOO_LARGE);
    expect((await send(gateway, randomBytes(1000), { token: "bob" })).status).toBe(200);
    // What was found out for one user holds for a while, and for nobody else.
    expect((await send(gateway, randomBytes(1001))).status).toBe(200);
    expect(gateway.homeserver.requests.filter(({ path }) => path.endsWith("/media/config"))).toHaveLength(2);
    expect(gateway.homeserver.uploads).toHaveLength(2);
    await expectNothingLeft(gateway);
  });
});

describe("before a byte is read", () => {
  it("the homeserver has to know the token: it is answered in its own words", async () => {
    await using gateway = await startHarness();
    gateway.homeserver.addToken("old", "expired");
    for (const [token, errcode, more] of [
      [undefined, "M_MISSING_TOKEN", {}],
      ["stranger", "M_UNKNOWN_TOKEN", { error: "Invalid access token passed.", soft_logout: false }],
      ["old", "M_UNKNOWN_TOKEN", { error: "Access token has expired", soft_logout: true }],
    ] as const) {
      const { request, answer } = openUpload(`${gateway.url}${PATH}`, 1_000_000_000, { token });
      request.flushHeaders();
      expect(await answer, String(token)).toMatchObject({ status: 401, json: { errcode, ...more } });
      request.destroy();
    }
    expect([gateway.scanner.begun, gateway.homeserver.uploads]).toEqual([0, []]);
    await expectNothingLeft(gateway);
  });

  it("a client that waits to be told to go on is told once there is room, and not before", async () => {
    await using gateway = await startHarness({ admission: { maxConcurrent: 1 } });
    const url = `${gateway.url}${PATH}`;
    const first = openUpload(url, LARGE.length, { token: TOKEN });
    first.request.write(LARGE.subarray(0, 1000));
    await expect.poll(() => gateway.uploadsInside()).toBe(1);
    const second = openUpload(url, CLEAN.length, { token: TOKEN, headers: { expect: "100-continue" } });
    let told = false;
    const goOn = once(second.request, "continue").then(() => (told = true));
    second.request.flushHeaders();
    await expect.poll(() => gateway.homeserver.requests.filter(({ path }) => path.endsWith("/whoami")).length).toBe(2);
    for (let turns = 0; turns < 20; turns += 1) await turn();
    expect(told).toBe(false);
    first.request.end(LARGE.subarray(1000));
    expect((await first.answer).status).toBe(200);
    await goOn;
    second.request.end(CLEAN);
    expect((await second.answer).status).toBe(200);
    expect(gateway.homeserver.uploads.map(({ size }) => size)).toEqual([LARGE.length, CLEAN.length]);
  });

  it("one that would be refused is never told to go on", async () => {
    await using gateway = await startHarness({ pipeline: { maxFileSize: 1000 } });
    for (const [token, status] of [
      ["stranger", 401],
      [TOKEN, 413],
    ] as const) {
      const { request, answer } = openUpload(`${gateway.url}${PATH}`, 1001, { token, headers: { expect: "100-continue" } });
      request.on("continue", () => expect.fail("told to go on"));
      request.flushHeaders();
      expect((await answer).status).toBe(status);
      request.destroy();
    }
  });

  it("uploads have their share of requests and of the spool, and downloads theirs", async () => {
    await using gateway = await startHarness({ admission: { maxPerClient: 3 }, uploads: { share: 6_000_000 }, pipeline: { wait: 300 } });
    const url = `${gateway.url}${PATH}`;
    const slow = openUpload(url, LARGE.length, { token: TOKEN });
    slow.request.write(LARGE.subarray(0, 1000));
    await expect.poll(() => gateway.uploadsInside()).toBe(1);
    const crowded = await send(gateway, LARGE);
    expect([crowded.status, crowded.json["errcode"], crowded.headers["retry-after"]]).toEqual([503, "M_UNKNOWN", "5"]);
    const download = gateway.put(LARGE);
    // On a busy machine it may take longer than anybody waits here.
    await expect.poll(async () => (await gateway.get(`download/${download}`, TOKEN)).status, { timeout: 20_000 }).toBe(200);
    slow.request.destroy();
    await expectNothingLeft(gateway);

    gateway.homeserver.addToken("bob");
    expect((await send(gateway, CLEAN, { token: "bob" })).status).toBe(200);
    const open = [1, 2, 3].map(() => openUpload(url, 1000, { token: "bob" }));
    for (const { request } of open) request.flushHeaders();
    await expect.poll(() => gateway.uploadsInside()).toBe(3);
    expect(await send(gateway, CLEAN, { token: "bob" })).toMatchObject({ status: 429, json: { errcode: "M_LIMIT_EXCEEDED" } });
    for (const { request } of open) request.destroy();
    await expectNothingLeft(gateway);
  });
});

describe("a client that sends slowly", () => {
  it("has its file scanned again when a scanner did not wait for it", async () => {
    await using gateway = await startHarness();
    let failures = 0;
    gateway.scanner.failsOver = () => (failures++ === 0 ? new GatewayError("scanner_unavailable") : undefined);
    expect((await send(gateway, LARGE)).status).toBe(200);
    expect([gateway.scanner.begun, gateway.scanner.scanned.length]).toEqual([2, 1]);
    // A scanner that never has a verdict has none in the end.
    gateway.scanner.failsOver = () => new GatewayError("unclear_verdict");
    expect((await send(gateway, randomBytes(5_000_000))).status).toBe(503);
  });

  it.each([
    ["half of the live scans at most are for uploads", { download: 4, upload: 4 }, 2],
    ["one is, however few there are", { download: 8, upload: 1 }, 1],
    ["scanners of downloads alone do not count", { download: 1, upload: 8 }, 3],
  ])("leaves scanners to others: %s", async (_what, live, begun) => {
    await using gateway = await startHarness({ pipeline: { liveScans: () => live } });
    const slow = [1, 2, 3].map((first) => {
      const { request, answer } = openUpload(`${gateway.url}${PATH}`, LARGE.length, { token: TOKEN });
      const bytes = Buffer.concat([Buffer.of(first), LARGE.subarray(1)]);
      request.write(bytes.subarray(0, 100_000));
      return { finish: () => request.end(bytes.subarray(100_000)), answer };
    });
    await expect.poll(() => gateway.uploadsInside()).toBe(3);
    await expect.poll(() => gateway.scanner.begun).toBe(begun);
    for (let turns = 0; turns < 20; turns += 1) await turn();
    expect(gateway.scanner.begun).toBe(begun);
    expect((await gateway.get(`download/${gateway.put(LARGE)}`, TOKEN)).status).toBe(200);
    for (const { finish } of slow) finish();
    expect((await Promise.all(slow.map(({ answer }) => answer))).map(({ status }) => status)).toEqual([200, 200, 200]);
  });
});

describe("a client that goes away", () => {
  it.each([
    ["while it sends", LARGE.length, {}],
    ["while it sends, in chunks", undefined, {}],
  ])("%s leaves nothing anywhere", async (_when, size, more) => {
    await using gateway = await startHarness();
    const { request } = openUpload(`${gateway.url}${PATH}`, size, { token: TOKEN, ...more });
    request.write(LARGE.subarray(0, 2_000_000));
    await expect.poll(() => gateway.spooled()).not.toMatchObject({ memory: 0, disk: 0 });
    if (size !== undefined) await expect.poll(() => gateway.scanner.begun).toBe(1);
    request.destroy();
    await expectNothingLeft(gateway);
    await expect.poll(() => gateway.scanner.cancelled).toBe(size === undefined ? 0 : 1);
    await expect.poll(() => gateway.reports.at(-1)?.error?.code).toBe("client_gone");
    expect(gateway.homeserver.uploadedBytes).toBe(0);
    expect((await send(gateway, LARGE)).status).toBe(200);
  });

  it("while it is scanned leaves nothing; whoever waits for the same content scans it then", async () => {
    await using gateway = await startHarness();
    const { scanner } = gateway;
    const held = Promise.withResolvers<void>();
    scanner.hold = held.promise;
    const { request } = openUpload(`${gateway.url}${PATH}`, CLEAN.length, { token: TOKEN });
    request.end(CLEAN);
    await expect.poll(() => scanner.begun).toBe(1);
    const download = gateway.get(`download/${gateway.put(CLEAN)}`, TOKEN);
    await expect.poll(() => gateway.homeserver.requests.length).toBe(3);
    request.destroy();
    await expect.poll(() => scanner.cancelled).toBe(1);
    held.resolve();
    expect((await download).body).toEqual(CLEAN);
    expect([gateway.homeserver.uploadedBytes, scanner.scanned.length]).toEqual([0, 1]);
    await expectNothingLeft(gateway);
  });

  it("once the homeserver is being sent it, has uploaded it", async () => {
    await using gateway = await startHarness();
    const created = await send(gateway, Buffer.alloc(0), { path: "/_matrix/media/v1/create" });
    const uri = String(created.json["content_uri"]).slice("mxc://".length);
    const held = Promise.withResolvers<void>();
    gateway.homeserver.uploadBehaviour = { hold: held.promise };
    const { request } = openUpload(`${gateway.url}${PATH}/${uri}`, LARGE.length, { token: TOKEN, method: "PUT" });
    request.end(LARGE);
    await expect.poll(() => gateway.homeserver.uploads.length).toBe(1);
    request.destroy();
    held.resolve();
    await expectNothingLeft(gateway);
    expect((await gateway.get(`download/${uri}`, TOKEN)).body.equals(LARGE)).toBe(true);
    expect(gateway.scanner.begun).toBe(1);
  });
});

describe("a homeserver", () => {
  it.each([
    ["refuses at once", { answer: { status: 413, body: { errcode: "M_TOO_LARGE", error: "Too large" } }, after: 1 }],
    ["refuses in the end", { answer: { status: 403, body: { errcode: "M_FORBIDDEN", error: "No", more: [1] } } }],
    ["is busy", { answer: { status: 429, body: { errcode: "M_LIMIT_EXCEEDED", error: "Slow" }, headers: { "retry-after": "7" } } }],
    ["fails", { answer: { status: 500, body: { errcode: "M_UNKNOWN", error: "Internal server error" } } }],
  ])("that %s: its answer is the answer", async (_what, uploadBehaviour) => {
    await using gateway = await startHarness();
    gateway.homeserver.uploadBehaviour = uploadBehaviour;
    for (const bytes of [CLEAN, LARGE]) {
      const answer = await send(gateway, bytes);
      expect(answer).toMatchObject({ status: uploadBehaviour.answer.status, json: uploadBehaviour.answer.body });
      expect(answer.headers["retry-after"]).toBe(uploadBehaviour.answer.status === 429 ? "7" : undefined);
    }
    await expectNothingLeft(gateway);
    gateway.homeserver.uploadBehaviour = {};
    expect((await send(gateway, LARGE)).status).toBe(200);
    await expect.poll(() => gateway.homeserver.connections()).toBeLessThan(3);
  });

  it.each([
    ["hangs up", { hangUpAfter: 1 }, 502, "M_UNKNOWN"],
    ["sends a page", { answer: { status: 502, body: "<html>" } }, 502, "M_UNKNOWN"],
    ["sends a proxy's page about the size", { answer: { status: 413, body: "<html>" } }, 413, "M_TOO_LARGE"],
    ["sends the client elsewhere", { answer: { status: 307, body: {}, headers: { location: "http://127.0.0.1:1/" } } }, 502, "M_UNKNOWN"],
    ["sends more than an answer", { answer: { status: 200, body: { content_uri: "x".repeat(100_000) } } }, 502, "M_UNKNOWN"],
    ["sends no object", { answer: { status: 200, body: [] } }, 502, "M_UNKNOWN"],
    ["says 205", { answer: { status: 205, body: { content_uri: "mxc://example.org/x" } } }, 502, "M_UNKNOWN"],
    ["says 601", { answer: { status: 601, body: { errcode: "M_UNKNOWN" } } }, 502, "M_UNKNOWN"],
    ["never answers", { stall: true }, 502, "M_UNKNOWN"],
  ])("that %s is %s", async (_what, uploadBehaviour, status, errcode) => {
    await using gateway = await startHarness({ uploads: { patience: 500 } });
    gateway.homeserver.uploadBehaviour = uploadBehaviour;
    expect(await send(gateway, LARGE)).toMatchObject({ status, json: { errcode } });
    await expectNothingLeft(gateway);
  });

  it("whose content_uri is none gets its answer passed on, and nothing is remembered", async () => {
    await using gateway = await startHarness();
    for (const body of [{ content_uri: "mxc://example.org/../x" }, { content_uri: 7 }, {}]) {
      gateway.homeserver.uploadBehaviour = { answer: { status: 200, body } };
      expect(await send(gateway, CLEAN)).toMatchObject({ status: 200, json: body });
    }
  });
});

describe("an address of the homeserver that leads back here", () => {
  it("is found out at the first upload", async () => {
    await using gateway = await startHarness();
    expect((await send(gateway, CLEAN)).status).toBe(200);
    const { via } = gateway.homeserver.uploads[0]?.headers ?? {};
    expect(via).toMatch(/^1\.1 \S+$/);
    const looped = await send(gateway, CLEAN, { headers: { via: `1.1 nginx, ${String(via)}` } });
    expect(looped).toMatchObject({ status: 502, json: { errcode: "M_UNKNOWN" } });
    expect(gateway.homeserver.uploads).toHaveLength(1);
  });
});

describe("the end of the gateway", () => {
  it("cuts off an upload that is still being sent, and sends nothing on", async () => {
    await using gateway = await startHarness();
    const { request, answer } = openUpload(`${gateway.url}${PATH}`, LARGE.length, { token: TOKEN });
    request.write(LARGE.subarray(0, 2_000_000));
    await expect.poll(() => gateway.spooled().memory).toBeGreaterThan(0);
    await gateway.shutdown();
    expect(await answer).toMatchObject({ status: 503, json: { errcode: "M_UNKNOWN" } });
    request.destroy();
    expect(await send(gateway, CLEAN)).toMatchObject({ status: 503 });
    expect(gateway.homeserver.uploadedBytes).toBe(0);
  });
});
