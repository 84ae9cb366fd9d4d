/** Uploads of a client that knows nothing of scanners, through nginx as docs/deployment.md has it, to a real Synapse. */
import { randomBytes } from "node:crypto";
import { createClient, MatrixError, type MatrixClient } from "matrix-js-sdk";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { EICAR } from "../../src/scan/canary-samples.ts";
import { startNginx } from "../support/nginx.ts";
import type { TlsPeer } from "../support/peers/tls-peer.ts";
import { rawRequest } from "../support/raw-request.ts";
import type { SynapseUser } from "../support/synapse.ts";
import { trustTestCertificate } from "../support/tls.ts";
import { type Stack, startStack } from "./stack.ts";

const nothing = (): void => undefined;
const SILENT = { trace: nothing, debug: nothing, info: nothing, warn: nothing, error: nothing, getChild: () => SILENT };

let stack: Stack;
let nginx: TlsPeer;
let alice: SynapseUser;
let client: MatrixClient;

beforeAll(async () => {
  trustTestCertificate();
  stack = await startStack({
    synapse: { settings: { max_upload_size: "10M" } },
    gateway: {
      web: { trusted_proxies: ["127.0.0.1"] },
      download: { headers_to_forward: ["x-forwarded-for"] },
      // Those of the start alone.
      scan: { canary_interval: "1h" },
      upload: { enabled: true },
      transparent: { enabled: true },
    },
  });
  nginx = await startNginx({ gateway: stack.gateway.url, synapse: stack.synapse.url, scansUploads: true, mediaPaths: "gateway" });
  alice = await stack.synapse.registerUser("alice");
  const { userId, token: accessToken, deviceId } = alice;
  client = createClient({ baseUrl: nginx.url, userId, accessToken, deviceId, logger: SILENT });
});
afterAll(async () => {
  await nginx?.stop();
  await stack[Symbol.asyncDispose]();
});

const upload = async (bytes: Uint8Array): Promise<string> =>
  (await client.uploadContent(new Blob([Uint8Array.from(bytes)]), { type: "text/plain", name: "a file.txt", includeFilename: true }))
    .content_uri;

const post = (token: string, body: Buffer): ReturnType<typeof rawRequest> =>
  rawRequest(nginx.url, "/_matrix/media/v3/upload", { method: "POST", headers: { authorization: `Bearer ${token}` }, body });

/** Synapse's own answer, past the gateway. */
async function stored(mxc: string): Promise<{ readonly body: Buffer; readonly disposition: string | undefined }> {
  const response = await fetch(`${stack.synapse.url}/_matrix/client/v1/media/download/${mxc.slice("mxc://".length)}`, {
    headers: { authorization: `Bearer ${alice.token}` },
  });
  expect(response.status).toBe(200);
  return { body: Buffer.from(await response.arrayBuffer()), disposition: response.headers.get("content-disposition") ?? undefined };
}

describe("matrix-js-sdk's upload", () => {
  it("reaches Synapse if it is clean, small and large, with its name, and is there for downloads without another scan", async () => {
    for (const bytes of [randomBytes(1000), randomBytes(5_000_000)]) {
      const mxc = await upload(bytes);
      expect(await stored(mxc)).toEqual({ body: bytes, disposition: expect.stringContaining("a%20file.txt") });
      const scans = (await stack.cIcap.accessLog()).length;
      const path = `/_matrix/client/v1/media/download/${mxc.slice("mxc://".length)}`;
      const download = await rawRequest(nginx.url, path, { headers: { authorization: `Bearer ${alice.token}` } });
      expect([download.status, download.body.equals(bytes)]).toEqual([200, true]);
      expect((await stack.cIcap.accessLog()).length).toBe(scans);
    }
  });

  it("is refused if it is infected, in words that the client reads", async () => {
    const error = await upload(EICAR).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(MatrixError);
    expect(error).toMatchObject({
      httpStatus: 403,
      errcode: "M_FORBIDDEN",
      data: { error: expect.stringContaining("Eicar-Test-Signature") },
    });
  });

  it("is refused by Synapse's own limit, and by its own word of a token that it does not know", async () => {
    const { "m.upload.size": limit = 0 } = await client.getMediaConfig();
    expect(limit).toBe(10 * 1024 * 1024);
    expect(await post(alice.token, Buffer.alloc(limit + 1))).toMatchObject({ status: 413, json: { errcode: "M_TOO_LARGE" } });
    expect(await post("unknown", Buffer.from("x"))).toMatchObject({
      status: 401,
      json: { errcode: "M_UNKNOWN_TOKEN", soft_logout: false },
    });
  });
});
