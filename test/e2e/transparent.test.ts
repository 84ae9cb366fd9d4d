/** Clients that know nothing of scanners, before a real Synapse: behind the reverse proxies as docs/deployment.md has them. */
import { LogLevel, LogService, MatrixClient as BotClient } from "@vector-im/matrix-bot-sdk";
import { createClient, type MatrixClient } from "matrix-js-sdk";
import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { EICAR } from "../../src/scan/canary-samples.ts";
import { startCaddy } from "../support/caddy.ts";
import { startHaProxy } from "../support/haproxy.ts";
import { startNginx } from "../support/nginx.ts";
import type { TlsPeer } from "../support/peers/tls-peer.ts";
import { rawRequest } from "../support/raw-request.ts";
import type { SynapseUser } from "../support/synapse.ts";
import { trustTestCertificate } from "../support/tls.ts";
import { png } from "./png.ts";
import { type Answer, ask, type Stack, startStack } from "./stack.ts";
import { TRAVERSALS } from "./traversals.ts";

const INFECTED = { errcode: "M_FORBIDDEN", error: "***VIRUS DETECTED***", reason: "MCS_MEDIA_NOT_CLEAN", info: "***VIRUS DETECTED***" };
const nothing = (): void => undefined;
const SILENT = { trace: nothing, debug: nothing, info: nothing, warn: nothing, error: nothing, getChild: () => SILENT };

let stack: Stack;
let nginx: TlsPeer;
let caddy: TlsPeer;
let haProxy: TlsPeer;
let alice: SynapseUser;
let bob: SynapseUser;

beforeAll(async () => {
  trustTestCertificate();
  stack = await startStack({
    gateway: {
      web: { trusted_proxies: ["127.0.0.1"] },
      download: { headers_to_forward: ["x-forwarded-for"] },
      transparent: { enabled: true },
    },
  });
  const upstreams = { gateway: stack.gateway.url, synapse: stack.synapse.url };
  [nginx, caddy, haProxy] = await Promise.all([
    startNginx({ ...upstreams, mediaPaths: "gateway" }),
    startCaddy(upstreams, "gateway"),
    startHaProxy(upstreams, "gateway"),
  ]);
  [alice, bob] = await Promise.all([stack.synapse.registerUser("alice"), stack.synapse.registerUser("bob")]);
});
afterAll(async () => {
  await Promise.all([nginx, caddy, haProxy].map((proxy) => proxy?.stop()));
  await stack[Symbol.asyncDispose]();
});

function clientOf({ userId, token, deviceId }: SynapseUser): MatrixClient {
  return createClient({ baseUrl: nginx.url, userId, accessToken: token, deviceId, logger: SILENT });
}

describe("matrix-js-sdk, as it is", () => {
  let sender: MatrixClient;
  let receiver: MatrixClient;
  beforeAll(() => {
    sender = clientOf(alice);
    receiver = clientOf(bob);
  });

  const upload = async (bytes: Uint8Array, type: string): Promise<string> =>
    (await sender.uploadContent(new Blob([Uint8Array.from(bytes)]), { type, name: "a file", includeFilename: true })).content_uri;
  /** At the URL that the client makes of it, with the token that it adds. */
  const fetched = (mxc: string, ...size: [] | [number, number, string]): Promise<Answer> => {
    const [width, height, method] = size;
    return ask(receiver.mxcUrlToHttp(mxc, width, height, method, false, true, true) ?? "", { token: bob.token });
  };

  it("uploads, downloads and shows thumbnails through the gateway; EICAR it does not get", async () => {
    const picture = png(200);
    const mxc = await upload(picture, "image/png");
    for (const round of ["scanned", "known"]) {
      const answer = await fetched(mxc);
      expect([answer.status, answer.body.equals(picture), answer.headers.get("content-type")], round).toEqual([200, true, "image/png"]);
      const thumbnail = await fetched(mxc, 32, 32, "crop");
      expect([thumbnail.status, thumbnail.headers.get("content-type")], round).toEqual([200, "image/png"]);
      expect(thumbnail.body.length).toBeGreaterThan(0);
    }
    const infected = await upload(EICAR, "image/png");
    for (const round of ["scanned", "known"]) {
      const answer = await fetched(infected);
      expect([answer.status, answer.json], round).toEqual([403, INFECTED]);
    }
    expect(stack.gateway.log()).toContain("transparent_download");
  });

  it("reads the media configuration and the homeserver's errors", async () => {
    expect(await receiver.getMediaConfig(true)).toEqual({ "m.upload.size": 209_715_200 });
    await expect(receiver.getUrlPreview("https://example.org/", 1)).rejects.toMatchObject({ httpStatus: 404, errcode: "M_UNRECOGNIZED" });
    const stranger = clientOf({ ...bob, token: "syt_unknown" });
    await expect(stranger.getMediaConfig(true)).rejects.toMatchObject({ httpStatus: 401, errcode: "M_UNKNOWN_TOKEN" });
  });
});

describe("matrix-bot-sdk, as it is", () => {
  it("uploads and downloads", async () => {
    LogService.setLevel(LogLevel.fromString("none", LogLevel.ERROR));
    LogService.muteModule("MatrixHttpClient");
    const client = new BotClient(nginx.url, bob.token);
    const bytes = randomBytes(100_000);
    const { data } = await client.downloadContent(await client.uploadContent(bytes, "image/webp", "a.webp"));
    expect(bytes.equals(data)).toBe(true);
    await expect(client.downloadContent(await client.uploadContent(EICAR, "image/png", "a.png"))).rejects.toMatchObject({
      statusCode: 403,
    });
  });
});

describe("without a client's code", () => {
  it("media that is uploaded later is 504 until then; the old paths give nothing that is frozen", async () => {
    const created = await ask(`${nginx.url}/_matrix/media/v1/create`, { token: alice.token, body: {} });
    const path = (created.json as { content_uri: string }).content_uri.slice("mxc://".length);
    const download = `${nginx.url}/_matrix/client/v1/media/download/${path}`;
    const early = await ask(`${download}?timeout_ms=100`, { token: bob.token });
    expect([early.status, early.json]).toEqual([504, expect.objectContaining({ errcode: "M_NOT_YET_UPLOADED" })]);
    const headers = { authorization: `Bearer ${alice.token}` };
    const bytes = randomBytes(3_000_000);
    expect((await rawRequest(nginx.url, `/_matrix/media/v3/upload/${path}`, { method: "PUT", headers, body: bytes })).status).toBe(200);
    expect((await ask(`${download}/a.bin`, { token: bob.token })).body.equals(bytes)).toBe(true);
    for (const version of ["r0", "v1", "v3"]) {
      const old = await ask(`${nginx.url}/_matrix/media/${version}/download/${path}`, { token: bob.token });
      expect([old.status, old.json], version).toEqual([404, expect.objectContaining({ errcode: "M_NOT_FOUND" })]);
    }
    expect((await ask(download)).json).toMatchObject({ errcode: "M_MISSING_TOKEN" });
    expect((await ask(`${download}?access_token=${bob.token}`)).body.equals(bytes)).toBe(true);
  });
});

describe("no spelling of a path gets EICAR past the gateway", () => {
  it.each<[string, () => TlsPeer]>([
    ["nginx", () => nginx],
    ["Caddy", () => caddy],
    ["HAProxy", () => haProxy],
  ])("behind %s", async (_name, proxy) => {
    const { path } = await stack.synapse.upload(alice.token, EICAR);
    const headers = { authorization: `Bearer ${bob.token}` };
    expect((await rawRequest(proxy().url, `/_matrix/client/v1/media/download/${path}`, { headers })).json).toEqual(INFECTED);
    let itself = 0;
    for (const target of TRAVERSALS(path)) {
      const { body } = await rawRequest(proxy().url, target, { headers });
      expect(body.includes(EICAR), target).toBe(false);
      // Synapse takes them for downloads, or there would be nothing to keep it from.
      if ((await rawRequest(stack.synapse.url, target, { headers })).body.equals(EICAR)) itself += 1;
    }
    expect(itself).toBeGreaterThan(10);
  });
});
