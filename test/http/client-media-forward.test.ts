/** What clients ask the homeserver's media API beside media: passed on, written anew. */
import { describe, expect, it } from "vitest";
import { type Harness, startHarness, TOKEN } from "../support/harness.ts";

const APIS = [
  ["/_matrix/client/v1/media", "/_matrix/client/v1/media"],
  ["/_matrix/client/unstable/org.matrix.msc3916/media", "/_matrix/client/v1/media"],
  ["/_matrix/media/v3", "/_matrix/media/v3"],
  ["/_matrix/media/v1", "/_matrix/media/v1"],
  ["/_matrix/media/r0", "/_matrix/media/r0"],
] as const;
const CONFIG = "/_matrix/client/v1/media/config";
const FAILED = {
  errcode: "M_UNKNOWN",
  error: "The media could not be fetched from the homeserver",
  reason: "MCS_MEDIA_REQUEST_FAILED",
  info: "The media could not be fetched from the homeserver",
};

function start(options: Parameters<typeof startHarness>[0] = {}): Promise<Harness> {
  return startHarness({ transparent: { onOpaque: "pass" }, ...options });
}

describe("config and preview_url", () => {
  it("go to the same API of the homeserver, with the client's token and forwarded headers, and no others", async () => {
    await using gateway = await start();
    const headers = { "x-forwarded-test": "kept", "x-other": "dropped", cookie: "a=b" };
    for (const [path, api] of APIS) {
      gateway.homeserver.requests.length = 0;
      const config = await gateway.get(`${path}/config?x=y`, TOKEN, { headers });
      expect([config.status, config.json], path).toEqual([200, { "m.upload.size": 209_715_200 }]);
      const page = "https://example.org/a?b=c&d#e";
      const preview = await gateway.get(`${path}/preview_url?url=${encodeURIComponent(page)}&ts=1510610716656&x=y&access_token=z`, TOKEN, {
        headers,
      });
      expect([preview.status, preview.json], path).toEqual([200, { "og:title": `About ${page}` }]);
      expect(gateway.homeserver.requests.map((request) => request.path)).toEqual([
        `${api}/config`,
        `${api}/preview_url?url=https%3A%2F%2Fexample.org%2Fa%3Fb%3Dc%26d%23e&ts=1510610716656`,
      ]);
      for (const sent of gateway.homeserver.requests) {
        expect(sent.headers).toMatchObject({ authorization: `Bearer ${TOKEN}`, "x-forwarded-test": "kept" });
        expect(sent.headers).not.toHaveProperty("x-other");
        expect(sent.headers).not.toHaveProperty("cookie");
      }
    }
    expect(gateway.scanner.begun).toBe(0);
  });

  it("the answer is JSON that no browser takes for anything else, and nobody keeps", async () => {
    await using gateway = await start();
    gateway.homeserver.behaviour = {
      answer: { status: 200, body: Buffer.from('{"m.upload.size": 9007199254740993}'), headers: { "set-cookie": "a=b" } },
    };
    const answer = await gateway.get(CONFIG, TOKEN);
    // As the homeserver wrote it: a number may be larger than JavaScript's.
    expect(answer.body.toString()).toBe('{"m.upload.size": 9007199254740993}');
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      "content-type": "application/json",
      "x-content-type-options": "nosniff",
      "cache-control": "private, no-store",
      "access-control-allow-origin": "*",
    });
    expect(answer.headers.get("set-cookie")).toBeNull();
  });

  it("the homeserver's standard errors come back with their status", async () => {
    await using gateway = await start();
    gateway.homeserver.addToken("old", "expired");
    const preview = "/_matrix/client/v1/media/preview_url";
    for (const [path, token, status, body] of [
      [CONFIG, undefined, 401, { errcode: "M_MISSING_TOKEN", error: "Missing access token" }],
      [CONFIG, "old", 401, { errcode: "M_UNKNOWN_TOKEN", error: "Access token has expired", soft_logout: true }],
      [preview, TOKEN, 400, { errcode: "M_MISSING_PARAM", error: "Missing required string query parameter url" }],
    ] as const) {
      const answer = await gateway.get(path, token);
      expect([answer.status, answer.json]).toEqual([status, body]);
    }
    for (const [status, sent, body, retryAfter] of [
      [403, { errcode: "M_FORBIDDEN", error: "no", extra: "<b>" }, { errcode: "M_FORBIDDEN", error: "no" }, null],
      [502, { errcode: "M_UNKNOWN", error: "x".repeat(5000) }, { errcode: "M_UNKNOWN", error: "x".repeat(256) }, null],
      [429, { errcode: "M_LIMIT_EXCEEDED", retry_after_ms: 1500 }, { errcode: "M_LIMIT_EXCEEDED", error: "", retry_after_ms: 1500 }, "2"],
    ] as const) {
      gateway.homeserver.behaviour = { answer: { status, body: sent } };
      const answer = await gateway.get(CONFIG, TOKEN);
      expect([answer.status, answer.json, answer.headers.get("retry-after")]).toEqual([status, body, retryAfter]);
    }
  });

  it("anything else that comes back is not handed on", async () => {
    await using gateway = await start();
    const answers: NonNullable<Harness["homeserver"]["behaviour"]["answer"]>[] = [
      { status: 200, body: "<html>" },
      { status: 200, body: [1] },
      { status: 200, body: "null" },
      { status: 200, body: { x: "x".repeat(300_000) } },
      { status: 201, body: {} },
      { status: 204 },
      { status: 304 },
      { status: 404, body: "<html>" },
      { status: 401, body: { errcode: "<script>" } },
      { status: 503, body: "" },
    ];
    for (const answer of answers) {
      gateway.homeserver.behaviour = { answer };
      const got = await gateway.get(CONFIG, TOKEN);
      expect([got.status, got.json], JSON.stringify(answer).slice(0, 80)).toEqual([502, FAILED]);
    }
    for (const behaviour of [{ hangUp: true }, { redirectTo: "https://192.0.2.1/x" }, { redirectTo: "http://127.0.0.1:1/x" }]) {
      gateway.homeserver.behaviour = behaviour;
      expect([(await gateway.get(CONFIG, TOKEN)).status], JSON.stringify(behaviour)).toEqual([502]);
    }
  });

  it("a homeserver that never answers is given up, and the client that went is not waited for", async () => {
    await using gateway = await start({ transparent: { onOpaque: "pass", timeout: 300 } });
    gateway.homeserver.behaviour = { stall: "headers" };
    expect((await gateway.get(CONFIG, TOKEN)).json).toEqual(FAILED);
    await expect.poll(() => gateway.homeserver.connections()).toBe(0);
  });

  it("a client that goes lets go of the homeserver", async () => {
    await using gateway = await start();
    gateway.homeserver.behaviour = { stall: "headers" };
    const gone = new AbortController();
    const asking = gateway.get(CONFIG, TOKEN, { signal: gone.signal });
    await expect.poll(() => gateway.homeserver.requests.length).toBe(1);
    gone.abort();
    await expect(asking).rejects.toThrow();
    await expect.poll(() => gateway.homeserver.connections()).toBe(0);
    await expect.poll(() => gateway.reports.at(-1)?.error?.code).toBe("client_gone");
  });

  it("counts as any other request of its client", async () => {
    await using gateway = await start({ admission: { maxPerClient: 1 } });
    expect((await gateway.get(CONFIG, TOKEN)).status).toBe(200);
    gateway.homeserver.behaviour = { stall: "headers" };
    const gone = new AbortController();
    const asking = gateway.get(CONFIG, TOKEN, { signal: gone.signal });
    await expect.poll(() => gateway.homeserver.requests.length).toBe(2);
    const limited = await gateway.get(CONFIG, TOKEN);
    expect([limited.status, limited.json["errcode"]]).toEqual([429, "M_LIMIT_EXCEEDED"]);
    gone.abort();
    await expect(asking).rejects.toThrow();
  });

  it("ts is a number", async () => {
    await using gateway = await start();
    const answer = await gateway.get("/_matrix/client/v1/media/preview_url?url=x&ts=now", TOKEN);
    expect([answer.status, answer.json["errcode"]]).toEqual([400, "M_INVALID_PARAM"]);
    expect(gateway.homeserver.requests).toEqual([]);
  });
});
