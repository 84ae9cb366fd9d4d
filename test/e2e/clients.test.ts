/** Shipped clients' own code against the gateway, behind nginx with TLS and the configuration that operators are given. */
import { Attachment, EncryptedAttachment } from "@matrix-org/matrix-sdk-crypto-wasm";
import { LogLevel, LogService, MatrixClient as BotClient, MatrixContentScannerClient, type EncryptedFile } from "@vector-im/matrix-bot-sdk";
import {
  ClientEvent,
  SyncState,
  createClient,
  EventType,
  type MatrixClient,
  MatrixEventEvent,
  MsgType,
  RoomEvent,
  type MatrixEvent,
} from "matrix-js-sdk";
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { request as requestTls } from "node:https";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { BASE_PATH } from "../../src/http/app.ts";
import { EICAR } from "../../src/scan/canary-samples.ts";
import { type Nginx, startNginx } from "../support/nginx.ts";
import type { SynapseUser } from "../support/synapse.ts";
import { testCertificate, trustTestCertificate } from "../support/tls.ts";
import { type Seal, sealByOlm, sealByVodozemac } from "./seal.ts";
import { ask, type Stack, startStack } from "./stack.ts";

const NOT_CLEAN = { reason: "MCS_MEDIA_NOT_CLEAN", info: "***VIRUS DETECTED***" };
const PDF = Buffer.from("%PDF-1.7\n%âãÏÓ\n");

let stack: Stack;
let nginx: Nginx;
let alice: SynapseUser;
let bob: SynapseUser;

beforeAll(async () => {
  trustTestCertificate();
  stack = await startStack({
    gateway: {
      web: { trusted_proxies: ["127.0.0.1"] },
      download: { headers_to_forward: ["x-forwarded-for"] },
      scan: { blocked_mimetypes: ["application/pdf"] },
    },
  });
  nginx = await startNginx({ gateway: stack.gateway.url, synapse: stack.synapse.url, mediaPaths: "refused" });
  [alice, bob] = await Promise.all([stack.synapse.registerUser("alice"), stack.synapse.registerUser("bob")]);
});
afterAll(async () => {
  await nginx.stop();
  await stack[Symbol.asyncDispose]();
});

/** By the crypto of Element X, Element Web and all that build on the Rust SDK. */
async function uploadEncrypted(plaintext: Uint8Array): Promise<{ ciphertext: Buffer; file: EncryptedFile }> {
  const attachment = Attachment.encrypt(plaintext);
  const info = JSON.parse(attachment.mediaEncryptionInfo ?? "") as Omit<EncryptedFile, "url">;
  const { mxc } = await stack.synapse.upload(alice.token, attachment.encryptedData);
  return { ciphertext: Buffer.from(attachment.encryptedData), file: { ...info, url: mxc } };
}

function decrypt(ciphertext: Uint8Array, file: EncryptedFile): Buffer {
  return Buffer.from(Attachment.decrypt(new EncryptedAttachment(ciphertext, JSON.stringify(file))));
}

describe("matrix-bot-sdk's MatrixContentScannerClient", () => {
  let client: BotClient;
  let scanner: MatrixContentScannerClient;

  beforeAll(() => {
    LogService.setLevel(LogLevel.fromString("none", LogLevel.ERROR));
    LogService.muteModule("MatrixHttpClient");
    client = new BotClient(nginx.url, bob.token);
    scanner = new MatrixContentScannerClient(client);
  });

  it("plain media", async () => {
    const bytes = randomBytes(100_000);
    const clean = await stack.synapse.upload(alice.token, bytes, { contentType: "image/webp" });
    expect(await scanner.scanContent(clean.mxc)).toEqual({ clean: true, info: "File is clean" });
    const { data, contentType } = await scanner.downloadContent(clean.mxc);
    expect([bytes.equals(data), contentType]).toEqual([true, "image/webp"]);
    const infected = await stack.synapse.upload(alice.token, EICAR);
    expect(await scanner.scanContent(infected.mxc)).toEqual({ clean: false, info: NOT_CLEAN.info });
    // Its error handler reads no buffers, so that it throws the answer itself.
    const answer = await scanner.downloadContent(infected.mxc).catch((error: unknown) => error as { statusCode: number; body: Buffer });
    expect(answer).toMatchObject({ statusCode: 403 });
    expect(JSON.parse(String("body" in answer ? answer.body : ""))).toEqual(NOT_CLEAN);
  });

  it("encrypted media", async () => {
    const plaintext = randomBytes(100_000);
    const clean = await uploadEncrypted(plaintext);
    expect(await scanner.scanContentEncrypted(clean.file)).toEqual({ clean: true, info: "File is clean" });
    // What it hands to its caller is undefined, by a fault of its own (`res.data`, where there is `res.body`): so what it received is looked at.
    const received = receivedBy(client);
    await scanner.downloadEncryptedContent(clean.file);
    expect(decrypt(received.at(-1) ?? Buffer.alloc(0), clean.file).equals(plaintext)).toBe(true);
    const infected = await uploadEncrypted(EICAR);
    expect(await scanner.scanContentEncrypted(infected.file)).toEqual({ clean: false, info: NOT_CLEAN.info });
    await expect(scanner.downloadEncryptedContent(infected.file)).rejects.toMatchObject({ statusCode: 403 });
  });

  it("its errors carry the reason", async () => {
    const pdf = await stack.synapse.upload(alice.token, PDF);
    await expect(scanner.scanContent(pdf.mxc)).rejects.toMatchObject({ body: { reason: "MCS_MIME_TYPE_FORBIDDEN" } });
    const gone = `mxc://${stack.synapse.serverName}/neverThere`;
    await expect(scanner.scanContent(gone)).rejects.toMatchObject({ body: { reason: "M_NOT_FOUND" } });
    const stranger = new MatrixContentScannerClient(new BotClient(nginx.url, "syt_unknown"));
    await expect(stranger.scanContent(pdf.mxc)).rejects.toMatchObject({ body: { reason: "M_UNKNOWN_TOKEN" } });
  });
});

/** The bodies of what this client gets from now on. */
function receivedBy(client: BotClient): Buffer[] {
  const bodies: Buffer[] = [];
  const doRequest = client.doRequest.bind(client);
  client.doRequest = async (...parameters: Parameters<BotClient["doRequest"]>) => {
    const response = (await doRequest(...parameters)) as { body: Buffer };
    bodies.push(response.body);
    return response;
  };
  return bodies;
}

describe("matrix-js-sdk with the Rust crypto, in an encrypted room", () => {
  const clients: MatrixClient[] = [];

  beforeAll(() => {
    // Parts of it log past the client's own logger.
    for (const method of ["debug", "info", "log"] as const) vi.spyOn(console, method).mockImplementation(nothing);
  });
  afterAll(() => {
    for (const client of clients) client.stopClient();
    vi.restoreAllMocks();
  });

  async function start({ userId, token, deviceId }: SynapseUser): Promise<MatrixClient> {
    const client = createClient({ baseUrl: nginx.url, userId, accessToken: token, deviceId, logger: SILENT });
    await client.initRustCrypto({ useIndexedDB: false });
    const synced = Promise.withResolvers<void>();
    client.on(ClientEvent.Sync, (state) => void (state === SyncState.Prepared && synced.resolve()));
    await client.startClient();
    clients.push(client);
    await synced.promise;
    return client;
  }

  it("what one sends, another downloads through the gateway and decrypts; EICAR it does not get", async () => {
    const [sender, receiver] = [await start(alice), await start(bob)];
    const encryption = { type: EventType.RoomEncryption, state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };
    const { room_id: room } = await sender.createRoom({ invite: [bob.userId], initial_state: [encryption] });
    const arrived = attachments(receiver);
    await receiver.joinRoom(room);
    await expect.poll(() => sender.getRoom(room)?.getMember(bob.userId)?.membership, { timeout: 20_000 }).toBe("join");

    const photo = randomBytes(200_000);
    for (const plaintext of [photo, EICAR]) {
      const attachment = Attachment.encrypt(plaintext);
      const upload = await sender.uploadContent(new Blob([Uint8Array.from(attachment.encryptedData)]), {
        includeFilename: false,
        type: "application/octet-stream",
      });
      const file = { ...(JSON.parse(attachment.mediaEncryptionInfo ?? "") as EncryptedFile), url: upload.content_uri };
      await sender.sendMessage(room, { msgtype: MsgType.File, body: "file.bin", file });
    }
    await expect.poll(() => arrived.length, { timeout: 20_000 }).toBe(2);

    const [clean, infected] = arrived as [EncryptedFile, EncryptedFile];
    // The reverse proxy keeps it from asking Synapse itself.
    const direct = receiver.mxcUrlToHttp(clean.url, undefined, undefined, undefined, true, true, true) ?? "";
    expect((await ask(direct, { token: bob.token })).status).toBe(403);

    const answer = await ask(`${nginx.url}${BASE_PATH}/download_encrypted`, { token: bob.token, body: { file: clean } });
    expect(answer.status).toBe(200);
    expect(decrypt(answer.body, clean).equals(photo)).toBe(true);
    const refused = await ask(`${nginx.url}${BASE_PATH}/download_encrypted`, { token: bob.token, body: { file: infected } });
    expect([refused.status, refused.json]).toEqual([403, NOT_CLEAN]);
  });
});

/** The attachments that arrive, decrypted from their events. */
function attachments(client: MatrixClient): EncryptedFile[] {
  const files: EncryptedFile[] = [];
  const note = (event: MatrixEvent): void => {
    const { file } = event.getContent<{ file?: EncryptedFile }>();
    if (event.getType() === "m.room.message" && file !== undefined && !files.some(({ url }) => url === file.url)) files.push(file);
  };
  client.on(RoomEvent.Timeline, (event) => {
    event.on(MatrixEventEvent.Decrypted, note);
    note(event);
  });
  return files;
}

const nothing = (): void => undefined;
const SILENT = { trace: nothing, debug: nothing, info: nothing, warn: nothing, error: nothing, getChild: () => SILENT };

describe("encrypted_body", () => {
  it.each<[string, Seal]>([
    ["Olm", sealByOlm],
    ["vodozemac", sealByVodozemac],
  ])("sealed by %s", async (_, seal) => {
    const { json } = await ask(`${nginx.url}${BASE_PATH}/public_key`);
    const sealed = async (file: EncryptedFile): Promise<{ encrypted_body: object }> => ({
      encrypted_body: await seal((json as { public_key: string }).public_key, JSON.stringify({ file })),
    });
    const plaintext = randomBytes(50_000);
    const clean = await uploadEncrypted(plaintext);
    const infected = await uploadEncrypted(EICAR);
    const post = async (endpoint: string, file: EncryptedFile) =>
      ask(`${nginx.url}${BASE_PATH}/${endpoint}`, { token: bob.token, body: await sealed(file) });
    expect((await post("scan_encrypted", clean.file)).json).toEqual({ clean: true, info: "File is clean" });
    expect(decrypt((await post("download_encrypted", clean.file)).body, clean.file).equals(plaintext)).toBe(true);
    expect((await post("scan_encrypted", infected.file)).json).toEqual({ clean: false, info: NOT_CLEAN.info });
    expect((await post("download_encrypted", infected.file)).json).toEqual(NOT_CLEAN);
  });
});

describe("nginx as docs/deployment.md has it", () => {
  it("passes HTTP/2 on, as Element X and browsers speak it, and large media whole", async () => {
    const bytes = randomBytes(20_000_000);
    const { path } = await stack.synapse.upload(alice.token, bytes);
    const session = connectHttp2(nginx.url, { ca: testCertificate.cert });
    try {
      for (const round of ["scanned", "known"]) {
        const stream = session.request({ ":path": `${BASE_PATH}/download/${path}`, authorization: `Bearer ${bob.token}` });
        const status = new Promise((resolve) => stream.on("response", (headers) => resolve(headers[":status"])));
        const body = await buffer(stream);
        expect([await status, body.equals(bytes)], round).toEqual([200, true]);
      }
    } finally {
      session.close();
    }
  });

  it("tells Synapse the client's own address, whatever the client writes about itself", async () => {
    const { path } = await stack.synapse.upload(alice.token, randomBytes(100));
    const dave = await stack.synapse.registerUser("dave");
    const headers = { authorization: `Bearer ${dave.token}`, "x-forwarded-for": "203.0.113.9" };
    const options = { headers, ca: testCertificate.cert, localAddress: "127.0.0.2", agent: false } as const;
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      requestTls(`${nginx.url}${BASE_PATH}/download/${path}`, options, resolve).on("error", reject).end();
    });
    expect([answer.statusCode, (await buffer(answer)).length]).toEqual([200, 100]);
    await expect.poll(() => stack.synapse.lastSeenAddress(dave), { timeout: 30_000, interval: 500 }).toBe("127.0.0.2");
  });

  it("has the README's location, word for word", async () => {
    const [location = ""] = /^ *location \^~ \/_matrix\/media_proxy\/ \{.*?^ *\}$/ms.exec(await withoutComments("README.md")) ?? [];
    expect(location).not.toBe("");
    expect(await withoutComments("docs/deployment.md")).toContain(location);
  });

  it("the gateway's errors arrive as they are", async () => {
    const media = await stack.synapse.upload(alice.token, EICAR);
    const answer = await ask(`${nginx.url}${BASE_PATH}/download/${media.path}`, { token: bob.token });
    expect([answer.status, answer.json, answer.headers.get("access-control-allow-origin")]).toEqual([403, NOT_CLEAN, "*"]);
    expect((await ask(`${nginx.url}${BASE_PATH}/download/a%20b/y`, { token: bob.token })).status).toBe(400);
  });
});

describe("while the scanner is away", () => {
  it("no client is told that a file is not clean, for it would believe that for good", async () => {
    const media = await stack.synapse.upload(alice.token, randomBytes(1000));
    const { file } = await uploadEncrypted(randomBytes(1000));
    await stack.cIcap.kill("SIGKILL");
    try {
      const scanner = new MatrixContentScannerClient(new BotClient(nginx.url, bob.token));
      await expect(scanner.scanContent(media.mxc)).rejects.toMatchObject({ body: { reason: "M_UNKNOWN" } });
      await expect(scanner.scanContentEncrypted(file)).rejects.toMatchObject({ body: { reason: "M_UNKNOWN" } });
      await expect(scanner.downloadContent(media.mxc)).rejects.toMatchObject({ statusCode: 503 });
    } finally {
      await stack.cIcap.restart();
    }
  });
});

async function withoutComments(file: string): Promise<string> {
  return (await readFile(join(import.meta.dirname, "../..", file), "utf8")).replaceAll(/^ *#.*\n/gm, "");
}
