/** Clients that know nothing of scanners, with a real c-icap and clamd: EICAR does not get out by any path of the homeserver's. */
import { randomBytes } from "node:crypto";
import { Attachment } from "@matrix-org/matrix-sdk-crypto-wasm";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { buildCanary, EICAR } from "../../src/scan/canary-samples.ts";
import { type CIcap, startCIcap } from "../support/peers/c-icap.ts";
import { type Clamd, startClamd } from "../support/peers/clamd.ts";
import { rawRequest } from "../support/raw-request.ts";
import { type RealGateway, startGateway, TOKEN } from "../support/real-gateway.ts";

const APIS = [
  "/_matrix/client/v1/media",
  "/_matrix/client/unstable/org.matrix.msc3916/media",
  "/_matrix/media/v3",
  "/_matrix/media/v1",
  "/_matrix/media/r0",
];
const INFECTED = { errcode: "M_FORBIDDEN", error: "***VIRUS DETECTED***", reason: "MCS_MEDIA_NOT_CLEAN", info: "***VIRUS DETECTED***" };
const DOWNLOAD = "/_matrix/client/v1/media/download";

let clamd: Clamd;
let cIcap: CIcap;

async function start(onOpaque: "pass" | "block"): Promise<RealGateway> {
  const gateway = await startGateway({
    icap: [{ name: "antivirus", urls: [cIcap.url()] }],
    transparent: { enabled: true, on_opaque: onOpaque },
  });
  await vi.waitFor(async () => expect((await gateway.readiness()).status).toBe(200), { timeout: 30_000, interval: 50 });
  return gateway;
}

/** Media that is given out by all APIs, with these bytes as its thumbnail too. */
function put(gateway: RealGateway, bytes: Uint8Array): string {
  const media = { bytes, contentType: "image/png", unauthenticated: true, thumbnail: { bytes, contentType: "image/png" } };
  const { serverName, mediaId } = gateway.homeserver.put(randomBytes(12).toString("hex"), media);
  return `${serverName}/${mediaId}`;
}

beforeAll(async () => {
  clamd = await startClamd();
  cIcap = await startCIcap({ clamd });
});
afterAll(async () => {
  await cIcap.stop();
  await clamd.stop();
});

describe("transparent", () => {
  let gateway: RealGateway;
  beforeAll(async () => {
    gateway = await start("pass");
  });
  afterAll(() => gateway[Symbol.asyncDispose]());

  it("EICAR is refused by every path and method: as it is, in a zip, in a PDF, at the end of a large zip", async () => {
    const large = Buffer.concat([randomBytes(20_000_000), buildCanary("zip").bytes]);
    for (const bytes of [EICAR, buildCanary("zip").bytes, buildCanary("pdf").bytes, large]) {
      for (const api of bytes === large ? APIS.slice(0, 1) : APIS) {
        const mxc = put(gateway, bytes);
        for (const path of [
          `download/${mxc}`,
          `download/${mxc}/harmless.txt`,
          `thumbnail/${mxc}?width=32&height=32`,
          `thumbnail/${mxc}/x?method=crop`,
        ]) {
          for (const token of [TOKEN, undefined]) {
            const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
            const answer = await rawRequest(gateway.url, `${api}/${path}`, { headers });
            const head = await rawRequest(gateway.url, `${api}/${path}`, { method: "HEAD", headers });
            const refused = token === undefined && api.startsWith("/_matrix/client/");
            expect([answer.status, head.status, head.body.length], `${api}/${path}`).toEqual(refused ? [401, 401, 0] : [403, 403, 0]);
            if (!refused) expect(answer.json).toEqual(INFECTED);
          }
        }
      }
    }
  });

  it("clean media passes, small and large, scanned and known; who may not read it gets none of it", async () => {
    for (const bytes of [Buffer.alloc(0), randomBytes(1000), randomBytes(50_000_000)]) {
      const mxc = put(gateway, bytes);
      for (const round of ["scanned", "known"]) {
        for (const api of bytes.length > 1000 ? APIS.slice(1, 3) : APIS)
          expect((await gateway.get(`${api}/download/${mxc}/x.bin`, TOKEN)).body.equals(bytes), round).toBe(true);
        expect((await gateway.get(`${DOWNLOAD}/${mxc}`, "mallory")).json["errcode"]).toBe("M_UNKNOWN_TOKEN");
        expect((await gateway.get(`${DOWNLOAD}/${mxc}`)).json["errcode"]).toBe("M_MISSING_TOKEN");
      }
    }
  });

  it("is counted apart from the scanner API", async () => {
    await gateway.get("/_matrix/client/v1/media/config", TOKEN);
    const { host, port } = gateway.gateway.adminAddress;
    const metrics = await (await fetch(`http://${host}:${port}/metrics`)).text();
    expect(metrics).toContain('mig_requests_total{route="transparent_download",status="403",outcome="infected"}');
    expect(metrics).toContain('mig_requests_total{route="transparent_config",status="200",outcome="ok"} 1');
  });

  it("without its scanner it answers 503 with Retry-After, and no byte", async () => {
    await cIcap.kill("SIGKILL");
    try {
      const answer = await fetch(`${gateway.url}${DOWNLOAD}/${put(gateway, randomBytes(1000))}`, {
        headers: { authorization: `Bearer ${TOKEN}` },
      });
      expect([answer.status, await answer.json()]).toEqual([503, expect.objectContaining({ errcode: "M_UNKNOWN", reason: "M_UNKNOWN" })]);
      expect(Number(answer.headers.get("retry-after"))).toBeGreaterThan(0);
    } finally {
      await cIcap.restart();
    }
  });
});

describe("transparent, with on_opaque: block", () => {
  it("encrypted attachments are to be had by the scanner API alone, where EICAR is found in them", async () => {
    await using gateway = await start("block");
    for (const [plaintext, status] of [
      [randomBytes(100_000), 200],
      [EICAR, 403],
    ] as const) {
      const attachment = Attachment.encrypt(plaintext);
      const info = JSON.parse(attachment.mediaEncryptionInfo ?? "") as Record<string, unknown>;
      const mxc = put(gateway, attachment.encryptedData);
      for (const round of ["scanned", "known"]) {
        const direct = await gateway.get(`${DOWNLOAD}/${mxc}`, TOKEN);
        expect([direct.status, direct.json["reason"]], round).toEqual([403, "MCS_MIME_TYPE_FORBIDDEN"]);
        const file = { ...info, url: `mxc://${mxc}` };
        expect((await gateway.post("download_encrypted", { file }, TOKEN)).status, round).toBe(status);
      }
    }
  });
});
