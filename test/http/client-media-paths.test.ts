/** Paths that are none of the media paths, and those that try to be. */
import { describe, expect, it } from "vitest";
import { EICAR } from "../../src/scan/canary-samples.ts";
import { type Harness, startHarness, TOKEN } from "../support/harness.ts";
import { rawRequest } from "../support/raw-request.ts";

const CLEAN = Buffer.from("a harmless text\n");
const AUTHENTICATED = ["/_matrix/client/v1/media", "/_matrix/client/unstable/org.matrix.msc3916/media"];
const LEGACY = ["/_matrix/media/v3", "/_matrix/media/v1", "/_matrix/media/r0"];

const start = (): Promise<Harness> => startHarness({ transparent: { onOpaque: "pass" } });

describe("any other path", () => {
  it("is 404 M_UNRECOGNIZED and never goes on, however it is written", async () => {
    await using gateway = await start();
    const mxc = gateway.put(EICAR, { unauthenticated: true });
    const media = [...AUTHENTICATED, ...LEGACY].flatMap((path) => [
      path,
      `${path}/`,
      `${path}/download`,
      `${path}/download/`,
      `${path}/download/${mxc}/`,
      `${path}/download/${mxc}/a/b`,
      `${path}/download//${mxc}`,
      `${path}//download/${mxc}`,
      `/${path}/download/${mxc}`,
      `${path}/DOWNLOAD/${mxc}`,
      `${path}/download;x/${mxc}`,
      `${path}/%64ownload%2f${mxc}`,
      `${path}/config/`,
      `${path}/config/x`,
      `${path}/preview_url/https://example.org`,
      `${path}/upload`,
      `${path}/create`,
      `${path}/x/../../../_synapse/admin/v1/users`,
    ]);
    const others = [
      "/",
      "/_matrix",
      "/_matrix/client/versions",
      "/_matrix/client/v3/account/whoami",
      "/_matrix/client/v2/media/config",
      "/_matrix/client/v1/mediax/config",
      "/_matrix/client/v1/media/keys",
      "/_matrix/MEDIA/v3/config",
      "/_matrix/media/v2/config",
      "/_matrix/media/v4/config",
      "/_matrix/media/unstable/fi.mau.msc2246/create",
      "/_matrix/media/v3/admin/x",
      `/_matrix/federation/v1/media/download/${mxc}`,
      "/_synapse/admin/v1/media/x",
    ];
    for (const target of [...media, ...others]) {
      const answer = await rawRequest(gateway.url, target, { headers: { authorization: `Bearer ${TOKEN}` } });
      expect([answer.status, answer.json], target).toEqual([404, { errcode: "M_UNRECOGNIZED", error: "Unrecognized request" }]);
    }
    // Hardly HTTP.
    for (const target of ["*", `/_matrix\\media\\v3\\download\\${mxc}`, `/_matrix/media/v3\\download/${mxc}`]) {
      expect((await rawRequest(gateway.url, target)).status, target).toBe(400);
    }
    expect(gateway.homeserver.requests).toEqual([]);
  });

  it("a path that could lead elsewhere on the homeserver leads nowhere", async () => {
    await using gateway = await start();
    const targets = [
      "/_matrix/media/v3/download/..%2f..%2f..%2fclient%2fv3%2faccount/whoami",
      "/_matrix/media/v3/download/example.org/..%2f..%2f..%2fconfig",
      "/_matrix/media/v3/download/example.org/%2e%2e",
      "/_matrix/media/v3/download/%2e%2e/%2e%2e",
      "/_matrix/media/v3/download/example.org/x%3fallow_redirect=true",
      "/_matrix/media/v3/download/example.org/x%23",
      "/_matrix/media/v3/download/example.org%00/x",
      "/_matrix/media/v3/download/example.org%40elsewhere/x",
      "http://elsewhere.example/_matrix/media/v3/download/../../../x",
    ];
    for (const target of targets) {
      const { status, json } = await rawRequest(gateway.url, target);
      expect([400, 404], target).toContain(status);
      expect(json, target).toHaveProperty("errcode");
    }
    expect(gateway.homeserver.requests).toEqual([]);
  });

  it("a target in absolute form is served as its path, whatever host it names", async () => {
    await using gateway = await start();
    const mxc = gateway.put(EICAR);
    const target = `http://elsewhere.example/_matrix/client/v1/media/download/${mxc}`;
    expect(await rawRequest(gateway.url, target, { headers: { authorization: `Bearer ${TOKEN}` } })).toMatchObject({
      status: 403,
      json: { errcode: "M_FORBIDDEN", reason: "MCS_MEDIA_NOT_CLEAN" },
    });
    expect(gateway.homeserver.requests.map(({ path }) => path)).toEqual([`/_matrix/client/v1/media/download/${mxc}?timeout_ms=10000`]);
  });

  it("other methods are 405 in the standard form; a preflight needs no token", async () => {
    await using gateway = await start();
    const mxc = gateway.put(CLEAN, { unauthenticated: true });
    for (const path of [...AUTHENTICATED, ...LEGACY]) {
      for (const end of [`download/${mxc}`, `thumbnail/${mxc}/x`, "config", "preview_url"]) {
        for (const method of ["POST", "PUT", "DELETE"]) {
          const answer = await gateway.get(`${path}/${end}`, TOKEN, { method });
          expect([answer.status, answer.json["errcode"], answer.headers.get("allow")]).toEqual([
            405,
            "M_UNRECOGNIZED",
            "GET, HEAD, OPTIONS",
          ]);
        }
        const preflight = await gateway.get(`${path}/${end}`, undefined, { method: "OPTIONS" });
        expect([preflight.status, preflight.headers.get("access-control-allow-headers")]).toEqual([
          200,
          expect.stringContaining("Authorization"),
        ]);
      }
    }
    expect(gateway.homeserver.requests).toEqual([]);
  });

  it("each request is reported under the pattern of its route, which names no media", async () => {
    await using gateway = await start();
    const mxc = gateway.put(CLEAN);
    await gateway.get(`/_matrix/client/v1/media/download/${mxc}/secret.txt`, TOKEN);
    await gateway.get(`/_matrix/media/v3/config?secret`, TOKEN);
    await gateway.get(`/_matrix/media/v3/secret`, TOKEN);
    await expect.poll(() => gateway.reports.length).toBe(3);
    expect(gateway.reports.map(({ route }) => route)).toEqual([
      "/_matrix/client/v1/media/download/:serverName/:mediaId/:filename",
      "/_matrix/media/v3/config",
      expect.not.stringContaining("secret"),
    ]);
    expect(gateway.reports[0]).toMatchObject({ status: 200, mxc: { mediaId: mxc.split("/")[1] }, sent: CLEAN.length });
  });
});
