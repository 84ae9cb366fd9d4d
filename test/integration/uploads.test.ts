/** Uploads through the whole gateway, with a real c-icap and clamd and a DLP: what is not clean never reaches the homeserver. */
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { type IcapRequest, IcapServer } from "../../icap/index.ts";
import { buildCanary, EICAR } from "../../src/scan/canary-samples.ts";
import { encryptFile } from "../support/encrypted-file.ts";
import { type CIcap, startCIcap } from "../support/peers/c-icap.ts";
import { type Clamd, startClamd } from "../support/peers/clamd.ts";
import { type RealGateway, startGateway, TOKEN } from "../support/real-gateway.ts";
import { openUpload, upload, type UploadAnswer, type UploadOptions } from "../support/upload.ts";

const PATH = "/_matrix/media/v3/upload";
const MIB = 1024 * 1024;
const SECRET = Buffer.from("card 4929 1234 5678 9012");

/** What a DLP that looks at uploads would see and say. */
class Dlp implements AsyncDisposable {
  readonly asked: IcapRequest[] = [];
  readonly bodies: Buffer[] = [];
  readonly #server: IcapServer;

  constructor() {
    const table = { isTag: "policy-1", methods: ["REQMOD"] } as const;
    this.#server = new IcapServer({
      services: {
        reqmod: {
          table,
          handle: async (request) => {
            this.asked.push(request);
            // A large body is looked at no further than here, and never kept.
            let body = Buffer.alloc(0);
            for await (const chunk of request.body) if (body.length < MIB) body = Buffer.concat([body, chunk]);
            this.bodies.push(body);
            if (!body.includes(SECRET)) return { status: 204 };
            const page = Buffer.from("<html><body><h1>Upload blocked</h1><p>Policy <b>PCI</b>: card numbers.</p></body></html>");
            const fields = [
              ["Content-Type", "text/html; charset=utf-8"],
              ["Content-Length", String(page.length)],
            ] as const;
            return { status: 200, http: { startLine: "HTTP/1.1 403 Forbidden", fields, body: page } };
          },
        },
      },
    });
  }

  async start(): Promise<string> {
    const { port } = await this.#server.listen(0, "127.0.0.1");
    return `icap://127.0.0.1:${port}/reqmod`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server[Symbol.asyncDispose]();
  }
}

let clamd: Clamd;
let cIcap: CIcap;
let dlp: Dlp;
let gateway: RealGateway;

beforeAll(async () => {
  clamd = await startClamd();
  cIcap = await startCIcap({ clamd });
  dlp = new Dlp();
  gateway = await startGateway({
    web: { trusted_proxies: ["127.0.0.1"] },
    icap: [
      // Its proof would take longer than all that is tested here.
      { name: "antivirus", urls: [cIcap.url()], prove_size: false },
      {
        name: "dlp",
        urls: [await dlp.start()],
        profile: "broadcom-dlp",
        direction: "upload",
        context: { client_ip: "always", user: "always" },
      },
    ],
    upload: { enabled: true },
  });
  gateway.homeserver.maxUploadSize = undefined;
  await vi.waitFor(async () => expect((await gateway.readiness()).status).toBe(200), { timeout: 60_000, interval: 50 });
}, 120_000);

afterAll(async () => {
  await gateway[Symbol.asyncDispose]();
  await dlp[Symbol.asyncDispose]();
  await cIcap.stop();
  await clamd.stop();
});

beforeEach(() => {
  gateway.homeserver.uploads.length = 0;
  gateway.homeserver.uploadedBytes = 0;
  gateway.homeserver.uploadBehaviour = {};
});

const send = (bytes: Uint8Array, more: UploadOptions & { readonly path?: string } = {}): Promise<UploadAnswer> =>
  upload(`${gateway.url}${more.path ?? PATH}`, bytes, { token: TOKEN, ...more });

async function created(): Promise<string> {
  const { json } = await send(Buffer.alloc(0), { path: "/_matrix/media/v1/create" });
  return String(json["content_uri"]).slice("mxc://".length);
}

/** Whether scan_file says that it is clean. */
async function check(bytes: Uint8Array, body?: unknown): Promise<unknown> {
  const form = new FormData();
  form.set("file", new Blob([Uint8Array.from(bytes)]));
  if (body !== undefined) form.set("body", JSON.stringify(body));
  const response = await fetch(`${gateway.url}/_matrix/media_proxy/unstable/scan_file`, {
    method: "POST",
    body: form,
    headers: { authorization: `Bearer ${TOKEN}` },
  });
  return ((await response.json()) as { clean: boolean }).clean;
}

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

describe("EICAR", () => {
  const LARGE = Buffer.concat([randomBytes(3_000_000), buildCanary("zip").bytes]);

  it.each([
    ["v3", EICAR, {}],
    ["v1", buildCanary("zip").bytes, {}],
    ["r0", buildCanary("pdf").bytes, {}],
    ["v3", LARGE, {}],
    ["v3", LARGE, { chunked: true }],
    ["v3", buildCanary("encrypted").bytes, {}],
    ["v3", buildCanary("expand").bytes, {}],
  ])("by POST %s never reaches the homeserver", async (api, bytes, how) => {
    const answer = await send(bytes, { ...how, path: `/_matrix/media/${api}/upload` });
    expect(answer).toMatchObject({ status: 403, json: { errcode: "M_FORBIDDEN", reason: "MCS_MEDIA_NOT_CLEAN" } });
    expect([gateway.homeserver.uploads, gateway.homeserver.uploadedBytes]).toEqual([[], 0]);
  });

  it("by PUT, and with its name", async () => {
    const path = `${PATH}/${await created()}`;
    const answer = await send(EICAR, { method: "PUT", path });
    expect([answer.status, answer.json["error"]]).toEqual([403, "The file is blocked: Eicar-Test-Signature.UNOFFICIAL"]);
    expect(gateway.homeserver.uploadedBytes).toBe(0);
    expect((await send(randomBytes(100), { method: "PUT", path })).status).toBe(200);
  });

  it("told to go on, it is refused all the same", async () => {
    const { request, answer } = openUpload(`${gateway.url}${PATH}`, EICAR.length, { token: TOKEN, headers: { expect: "100-continue" } });
    request.flushHeaders();
    await once(request, "continue");
    request.end(EICAR);
    expect((await answer).status).toBe(403);
    expect(gateway.homeserver.uploadedBytes).toBe(0);
  });

  it("is found by scan_file, plain and encrypted", async () => {
    const sealed = await encryptFile(EICAR);
    const body = { file: sealed.file("example.org/x") };
    expect(await Promise.all([check(EICAR), check(randomBytes(100)), check(sealed.ciphertext, body), check(SECRET)])).toEqual([
      false,
      true,
      false,
      false,
    ]);
    // Of an upload nobody sees more than this.
    expect(await check(sealed.ciphertext)).toBe(true);
  });
});

describe("a DLP", () => {
  it("sees an upload as one, with its user and the client's address, and its page is the error", async () => {
    dlp.asked.length = 0;
    const answer = await send(SECRET, { headers: { "content-type": "text/x-claimed", "x-forwarded-for": "203.0.113.9" } });
    const text = "The file is blocked: Upload blocked Policy PCI: card numbers.";
    expect([answer.status, answer.json]).toEqual([403, { errcode: "M_FORBIDDEN", error: text, reason: "MCS_MEDIA_NOT_CLEAN", info: text }]);
    const [request] = dlp.asked;
    expect(request?.method).toBe("REQMOD");
    expect(request?.httpRequest?.startLine).toBe("POST http://media.invalid/media HTTP/1.1");
    expect(
      Object.fromEntries(["host", "content-type", "content-length"].map((name) => [name, request?.httpRequest?.headers.get(name)])),
    ).toEqual({
      host: "media.invalid",
      "content-type": "application/octet-stream",
      "content-length": String(SECRET.length),
    });
    const user = Buffer.from(request?.headers.get("x-authenticated-user") ?? "", "base64").toString();
    expect([user, request?.headers.get("x-client-ip")]).toEqual([`@${TOKEN}:example.org`, "203.0.113.9"]);
    expect(dlp.bodies.at(-1)).toEqual(SECRET);
    expect(gateway.homeserver.uploadedBytes).toBe(0);
  });

  it("is not asked about downloads, and the antivirus not again", async () => {
    const bytes = randomBytes(2_000_000);
    const uri = String((await send(bytes)).json["content_uri"]).slice("mxc://".length);
    const asked = dlp.asked.length;
    const scans = await cIcap.accessLog();
    expect((await gateway.get(`download/${uri}`, TOKEN)).body.equals(bytes)).toBe(true);
    expect((await gateway.get(`download/${gateway.put(SECRET)}`, TOKEN)).body).toEqual(SECRET);
    expect(dlp.asked).toHaveLength(asked);
    expect((await cIcap.accessLog()).length).toBe(scans.length + 1);
  });
});

describe("clean bytes", () => {
  it("arrive unchanged, also 200 MiB in bounded memory", async () => {
    gateway.homeserver.keepsUploads = false;
    const size = 200 * MIB;
    const noise = randomBytes(MIB);
    const hash = createHash("sha256");
    const { request, answer } = openUpload(`${gateway.url}${PATH}`, size, { token: TOKEN });
    const before = process.memoryUsage().rss;
    let most = before;
    for (let at = 0; at < size; at += MIB) {
      const piece = Buffer.from(noise);
      piece.writeUInt32BE(at);
      hash.update(piece);
      if (!request.write(piece)) await once(request, "drain");
      most = Math.max(most, process.memoryUsage().rss);
    }
    request.end();
    const sampler = setInterval(() => (most = Math.max(most, process.memoryUsage().rss)), 50);
    expect((await answer).status).toBe(200);
    clearInterval(sampler);
    gateway.homeserver.keepsUploads = true;
    expect(gateway.homeserver.uploads).toMatchObject([{ size, sha256: hash.digest("hex") }]);
    // Client, gateway and homeserver are all of this process.
    expect(most - before).toBeLessThan(size * 0.75);
  }, 120_000);

  it("in chunks, without a length", async () => {
    const bytes = randomBytes(20_000_000);
    expect((await send(bytes, { chunked: true })).status).toBe(200);
    expect(gateway.homeserver.uploads).toMatchObject([{ size: bytes.length, sha256: sha256(bytes) }]);
    expect(gateway.homeserver.uploads[0]?.headers["content-length"]).toBe(String(bytes.length));
  });

  it("twelve at once", async () => {
    const all = Array.from({ length: 12 }, () => randomBytes(1_500_000));
    const answers = await Promise.all(all.map((bytes) => send(bytes)));
    expect(answers.map(({ status }) => status)).toEqual(all.map(() => 200));
    expect(gateway.homeserver.uploads.map((stored) => stored.sha256).toSorted()).toEqual(all.map(sha256).toSorted());
  });

  it("of a client that stops half way leave nothing", async () => {
    const { request } = openUpload(`${gateway.url}${PATH}`, 20_000_000, { token: TOKEN });
    request.write(randomBytes(8_000_000));
    await expect.poll(() => spooled(), { timeout: 10_000 }).toBeGreaterThan(0);
    request.destroy();
    await expect.poll(() => spooled(), { timeout: 10_000 }).toBe(0);
    expect(gateway.homeserver.uploadedBytes).toBe(0);
  });

  it("of which the homeserver wants no more than the beginning: its answer is the answer", async () => {
    const body = { errcode: "M_TOO_LARGE", error: "Upload request body is too large" };
    gateway.homeserver.uploadBehaviour = { answer: { status: 413, body }, after: 1 };
    expect(await send(randomBytes(20_000_000))).toMatchObject({ status: 413, json: body });
    await expect.poll(() => spooled(), { timeout: 10_000 }).toBe(0);
    gateway.homeserver.uploadBehaviour = {};
    expect((await send(randomBytes(20_000_000))).status).toBe(200);
  });
});

/** Bytes in memory and on disk. */
async function spooled(): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${gateway.gateway.adminAddress.port}/metrics`)).text();
  return [...text.matchAll(/^mig_spool_bytes\{.*\} (\d+)$/gm)].reduce((sum, [, bytes]) => sum + Number(bytes), 0);
}
