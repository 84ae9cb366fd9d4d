import { buffer } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { GatewayError } from "../../src/errors.ts";
import { Homeserver } from "../../src/media/homeserver.ts";
import type { HomeserverOptions } from "../../src/media/homeserver.ts";
import type { Credentials, FetchedMedia, MediaVariant } from "../../src/media/source.ts";
import { FakeHomeserver } from "../support/fake-homeserver.ts";
import { testCertificate, trustTestCertificate } from "../support/tls.ts";

const DOWNLOAD: MediaVariant = { kind: "download" };
const ALICE: Credentials = { authorization: "Bearer alice", forwarded: {} };
const NOBODY: Credentials = { authorization: undefined, forwarded: {} };
const CAT = { serverName: "example.org", mediaId: "cat" };
const BYTES = Buffer.from("a picture of a cat");

trustTestCertificate();

const signal = (): AbortSignal => AbortSignal.timeout(20_000);

let fake: FakeHomeserver;
let homeserver: Homeserver;

function connect(options: Partial<HomeserverOptions> = {}): Homeserver {
  return new Homeserver({ baseUrl: fake.url, additionalHeaders: {}, maxDecodedSize: 1024 * 1024, ...options });
}

beforeEach(async () => {
  fake = await FakeHomeserver.start();
  fake.addToken("alice");
  fake.addToken("bob");
  fake.addToken("old", "expired");
  fake.put("cat", { bytes: BYTES, contentType: "image/png" });
  homeserver = connect();
});

afterEach(async () => {
  await homeserver[Symbol.asyncDispose]();
  await fake[Symbol.asyncDispose]();
});

/** Replaces the homeserver under test. */
async function reconnect(options: Partial<HomeserverOptions>): Promise<void> {
  await homeserver[Symbol.asyncDispose]();
  homeserver = connect(options);
}

const paths = (): string[] => fake.requests.map(({ path }) => path);
const lastHeaders = () => fake.requests.at(-1)?.headers ?? {};

describe("with a token", () => {
  it("fetches from the authenticated endpoint, with the client's own Authorization", async () => {
    const media = await homeserver.fetch(CAT, DOWNLOAD, ALICE, signal());
    expect(await buffer(media.body)).toEqual(BYTES);
    expect(media).toMatchObject({ contentType: "image/png", contentDisposition: "inline", size: BYTES.length });
    expect(paths()).toEqual(["/_matrix/client/v1/media/download/example.org/cat?timeout_ms=10000"]);
    expect(lastHeaders()).toMatchObject({ authorization: "Bearer alice", "accept-encoding": "identity" });
  });

  it("fetches a thumbnail with all of its parameters", async () => {
    fake.put("cat", { bytes: BYTES, thumbnail: { bytes: Buffer.from("small"), contentType: "image/webp" } });
    const media = await homeserver.fetch(
      CAT,
      { kind: "thumbnail", width: 64, height: 48, method: "crop", animated: true },
      ALICE,
      signal(),
    );
    expect((await buffer(media.body)).toString()).toBe("small");
    expect(media.contentType).toBe("image/webp");
    expect(paths()).toEqual([
      "/_matrix/client/v1/media/thumbnail/example.org/cat?width=64&height=48&method=crop&animated=true&timeout_ms=10000",
    ]);
  });

  it("sends a server name as one percent-encoded path segment", async () => {
    const mxc = fake.put("cat", { bytes: BYTES }, "[::1]:8448");
    const media = await homeserver.fetch(mxc, DOWNLOAD, ALICE, signal());
    expect(await buffer(media.body)).toEqual(BYTES);
    expect(paths()).toEqual(["/_matrix/client/v1/media/download/%5B%3A%3A1%5D%3A8448/cat?timeout_ms=10000"]);
  });

  it("never tries the endpoints that ask for no token", async () => {
    fake.put("cat", { bytes: BYTES, unauthenticated: true, readers: ["alice"] });
    await expect(homeserver.fetch(CAT, DOWNLOAD, { ...ALICE, authorization: "Bearer bob" }, signal())).rejects.toMatchObject({
      status: 502,
    });
    await expect(homeserver.fetch({ ...CAT, mediaId: "dog" }, DOWNLOAD, ALICE, signal())).rejects.toMatchObject({ code: "not_found" });
    expect(paths().every((path) => path.startsWith("/_matrix/client/v1/media/"))).toBe(true);
  });

  it("asks the homeserver again for each request, with that request's token", async () => {
    await buffer((await homeserver.fetch(CAT, DOWNLOAD, ALICE, signal())).body);
    await expect(homeserver.fetch(CAT, DOWNLOAD, { ...ALICE, authorization: "Bearer mallory" }, signal())).rejects.toMatchObject({
      code: "unknown_token",
    });
    await expect(homeserver.fetch(CAT, DOWNLOAD, NOBODY, signal())).rejects.toMatchObject({ code: "not_found" });
    expect(fake.requests.map(({ headers }) => headers.authorization)).toEqual(["Bearer alice", "Bearer mallory", undefined, undefined]);
  });
});

describe("without a token", () => {
  it("fetches from v3", async () => {
    fake.put("cat", { bytes: BYTES, unauthenticated: true });
    const media = await homeserver.fetch(CAT, DOWNLOAD, NOBODY, signal());
    expect(await buffer(media.body)).toEqual(BYTES);
    expect(paths()).toEqual(["/_matrix/media/v3/download/example.org/cat?timeout_ms=10000"]);
    expect(lastHeaders()).not.toHaveProperty("authorization");
  });

  it("takes an empty Authorization for none", async () => {
    await expect(homeserver.fetch(CAT, DOWNLOAD, { authorization: " ", forwarded: {} }, signal())).rejects.toMatchObject({
      code: "not_found",
    });
    expect(paths()[0]).toContain("/_matrix/media/v3/");
  });

  it("then asks r0, of a homeserver that does not know v3", async () => {
    await using old = await FakeHomeserver.start({ unauthenticatedApis: ["r0"] });
    old.put("cat", { bytes: BYTES, unauthenticated: true });
    await reconnect({ baseUrl: old.url });
    const media = await homeserver.fetch(CAT, DOWNLOAD, NOBODY, signal());
    expect(await buffer(media.body)).toEqual(BYTES);
    expect(old.requests.map(({ path }) => path)).toEqual([
      "/_matrix/media/v3/download/example.org/cat?timeout_ms=10000",
      "/_matrix/media/r0/download/example.org/cat?timeout_ms=10000",
    ]);
  });

  it("does not find frozen media", async () => {
    await expect(homeserver.fetch(CAT, DOWNLOAD, NOBODY, signal())).rejects.toMatchObject({ code: "not_found", status: 404 });
    expect(paths()).toHaveLength(2);
  });

  it("hears that a token is missing", async () => {
    fake.behaviour = { answer: { status: 401, body: { errcode: "M_MISSING_TOKEN", error: "Missing access token" } } };
    await expect(homeserver.fetch(CAT, DOWNLOAD, NOBODY, signal())).rejects.toMatchObject({
      code: "missing_token",
    });
  });
});

describe("headers", () => {
  it("sends the operator's and the forwarded ones, the operator's winning, and never those that would change what comes back", async () => {
    await reconnect({ additionalHeaders: { "User-Agent": "scanner", "X-Gateway": "secret" } });
    const forwarded = {
      host: "matrix.example.org",
      "x-gateway": "spoofed",
      range: "bytes=0-1",
      "if-none-match": '"x"',
      "accept-encoding": "gzip",
    };
    const media = await homeserver.fetch(CAT, DOWNLOAD, { ...ALICE, forwarded }, signal());
    expect(await buffer(media.body)).toEqual(BYTES);
    expect(lastHeaders()).toMatchObject({
      "user-agent": "scanner",
      "x-gateway": "secret",
      host: "matrix.example.org",
      "accept-encoding": "identity",
    });
    expect(lastHeaders()).not.toHaveProperty("range");
    expect(lastHeaders()).not.toHaveProperty("if-none-match");
  });

  it("lets no forwarded Host choose whose certificate is believed", async () => {
    await using home = await FakeHomeserver.start({ tls: testCertificate });
    home.addToken("alice");
    home.put("cat", { bytes: BYTES });
    await reconnect({ baseUrl: home.url });
    const media = await homeserver.fetch(CAT, DOWNLOAD, { ...ALICE, forwarded: { host: "elsewhere.example.net" } }, signal());
    expect(await buffer(media.body)).toEqual(BYTES);
    // The certificate is not for localhost, though it is for the Host that is asked for.
    await reconnect({ baseUrl: home.url.replace("127.0.0.1", "localhost") });
    const spoofed = { ...ALICE, forwarded: { host: "hs.example.test" } };
    await expect(homeserver.fetch(CAT, DOWNLOAD, spoofed, signal())).rejects.toMatchObject({ code: "homeserver_failed" });
    expect(home.requests).toHaveLength(1);
  });

  it("refuses an Authorization that can't stand in a header, without asking", async () => {
    const credentials = { authorization: "Bearer a\r\nX-Injected: 1", forwarded: {} };
    await expect(homeserver.fetch(CAT, DOWNLOAD, credentials, signal())).rejects.toMatchObject({ code: "missing_token" });
    expect(fake.requests).toEqual([]);
  });

  it("leaves out a forwarded header that can't stand in a message", async () => {
    const media = await homeserver.fetch(CAT, DOWNLOAD, { ...ALICE, forwarded: { "x-a": "1\r\nx-b: 2", "x c": "3" } }, signal());
    await buffer(media.body);
    expect(Object.keys(lastHeaders())).not.toEqual(expect.arrayContaining(["x-a"]));
    expect(lastHeaders()).not.toHaveProperty("x-b");
  });

  it.each([{ Authorization: "Bearer x" }, { Range: "bytes=0-1" }, { "Accept-Encoding": "gzip" }, { "x y": "z" }, { "x-y": "a\nb" }])(
    "does not start with the additional header %j",
    (additionalHeaders) => {
      expect(() => connect({ additionalHeaders })).toThrow(TypeError);
    },
  );
});

/** Fetches while the homeserver answers everything like this. */
function answers(status: number, body: unknown, headers: Record<string, string> = {}, credentials = ALICE): Promise<FetchedMedia> {
  fake.behaviour = { answer: { status, body, headers } };
  return homeserver.fetch(CAT, DOWNLOAD, credentials, signal());
}

/** What a client of the scanner API is told. */
async function told(answer: Promise<FetchedMedia>): Promise<unknown> {
  const error: unknown = await answer.catch((failure: unknown) => failure);
  return error instanceof GatewayError ? error.body("scanner") : error;
}

describe("answers that are not media", () => {
  it("404 and 400 M_UNRECOGNIZED: not found", async () => {
    await expect(answers(404, "<html>")).rejects.toMatchObject({ code: "not_found" });
    await expect(answers(404, { errcode: "M_UNRECOGNIZED" })).rejects.toMatchObject({ code: "not_found" });
    await expect(answers(400, { errcode: "M_UNRECOGNIZED" })).rejects.toMatchObject({ code: "not_found" });
    await expect(answers(400, { errcode: "M_BAD_JSON" })).rejects.toMatchObject({ code: "homeserver_failed" });
  });

  it("an expired token: the homeserver's own words", async () => {
    const answer = homeserver.fetch(CAT, DOWNLOAD, { ...ALICE, authorization: "Bearer old" }, signal());
    await expect(answer).rejects.toMatchObject({ code: "unknown_token", status: 401 });
    expect(await told(answer)).toMatchObject({
      reason: "M_UNKNOWN_TOKEN",
      errcode: "M_UNKNOWN_TOKEN",
      error: "Access token has expired",
      soft_logout: true,
    });
  });

  it("an unknown token: not a soft logout; a long text is cut", async () => {
    const answer = answers(401, { errcode: "M_UNKNOWN_TOKEN", error: "x".repeat(10_000) });
    expect(await told(answer)).toMatchObject({ errcode: "M_UNKNOWN_TOKEN", error: "x".repeat(256), soft_logout: false });
  });

  it("401 without a Matrix errcode (a reverse proxy's own) logs nobody out", async () => {
    await expect(answers(401, "<html>Unauthorized")).rejects.toMatchObject({ code: "homeserver_failed", status: 502 });
    await expect(answers(401, { errcode: "<script>" })).rejects.toMatchObject({ code: "homeserver_failed" });
  });

  it("401 to a request without a token: the token is missing, whatever it says", async () => {
    await expect(answers(401, { errcode: "M_UNKNOWN_TOKEN", error: "?" }, {}, NOBODY)).rejects.toMatchObject({ code: "missing_token" });
  });

  it("429: the same, with its Retry-After", async () => {
    const limited = { errcode: "M_LIMIT_EXCEEDED", error: "Too many requests", retry_after_ms: 1500 };
    const answer = answers(429, limited, { "retry-after": "7" });
    await expect(answer).rejects.toMatchObject({ code: "rate_limited", headers: { "retry-after": "7" } });
    expect(await told(answer)).toMatchObject({ errcode: "M_LIMIT_EXCEEDED", retry_after_ms: 7000 });
    await expect(answers(429, limited)).rejects.toMatchObject({ headers: { "retry-after": "2" } });
    await expect(answers(429, "")).rejects.toMatchObject({ code: "rate_limited" });
  });

  it("429: a date, and delays that are out of bounds", async () => {
    const now = Date.parse("2026-11-22T00:00:00Z");
    await reconnect({ clock: () => now });
    await expect(answers(429, {}, { "retry-after": new Date(now + 30_000).toUTCString() })).rejects.toMatchObject({
      headers: { "retry-after": "30" },
    });
    await expect(answers(429, {}, { "retry-after": new Date(now - 30_000).toUTCString() })).rejects.toMatchObject({
      headers: { "retry-after": "1" },
    });
    await expect(answers(429, {}, { "retry-after": "9999999999" })).rejects.toMatchObject({ headers: { "retry-after": "3600" } });
    await expect(answers(429, { retry_after_ms: -5 })).rejects.toMatchObject({ headers: { "retry-after": "1" } });
  });

  it("504 M_NOT_YET_UPLOADED apart from any other 504", async () => {
    fake.put("cat", { bytes: BYTES, pending: true });
    await expect(homeserver.fetch(CAT, DOWNLOAD, ALICE, signal())).rejects.toMatchObject({ code: "not_yet_uploaded", status: 504 });
    await expect(answers(504, "Gateway Timeout")).rejects.toMatchObject({ code: "homeserver_failed", status: 502 });
  });

  it.each([201, 202, 203, 204, 205, 206, 300, 304, 400, 403, 405, 410, 413, 500, 502, 503])("%i is never media", async (status) => {
    await expect(
      answers(status, status === 204 || status === 304 ? undefined : { errcode: "M_UNKNOWN", error: "no" }),
    ).rejects.toMatchObject({
      code: "homeserver_failed",
      status: 502,
    });
  });

  it("an error's body without an end is not waited for", async () => {
    fake.behaviour = { answer: { status: 500, body: Buffer.alloc(1024 * 1024, 0x7b) } };
    await expect(homeserver.fetch(CAT, DOWNLOAD, ALICE, signal())).rejects.toMatchObject({ code: "homeserver_failed" });
  });

  it("nobody there", async () => {
    const gone = await FakeHomeserver.start();
    const baseUrl = gone.url;
    await gone[Symbol.asyncDispose]();
    await reconnect({ baseUrl });
    await expect(homeserver.fetch(CAT, DOWNLOAD, ALICE, signal())).rejects.toMatchObject({
      code: "homeserver_failed",
      message: expect.stringContaining("ECONNREFUSED"),
    });
  });
});

describe("the configuration", () => {
  it("takes a base URL with a path and slashes at its end", async () => {
    await reconnect({ baseUrl: `${fake.url}/hs//` });
    await expect(homeserver.fetch(CAT, DOWNLOAD, ALICE, signal())).rejects.toMatchObject({ code: "not_found" });
    expect(paths()).toEqual(["/hs/_matrix/client/v1/media/download/example.org/cat?timeout_ms=10000"]);
  });

  it.each([
    "",
    "example.org",
    "ftp://example.org",
    "https://user:password@example.org",
    "https://example.org/?x=1",
    "https://example.org/#x",
  ])("does not start with the base URL %j", (baseUrl) => {
    expect(() => connect({ baseUrl })).toThrow(TypeError);
  });

  it("does not start with a proxy of another kind", () => {
    expect(() => connect({ proxy: "socks5://127.0.0.1:1080" })).toThrow(TypeError);
  });
});

describe("whose token it is", () => {
  it("is what the configured homeserver says", async () => {
    expect(await homeserver.whoami(ALICE, signal())).toBe(`@alice:${fake.serverName}`);
    expect(paths()).toEqual(["/_matrix/client/v3/account/whoami"]);
    expect(lastHeaders()).toMatchObject({ authorization: "Bearer alice" });
  });

  it("is nobody's without a token, and without a homeserver that would see it", async () => {
    expect(await homeserver.whoami(NOBODY, signal())).toBeUndefined();
    await using strangers = new Homeserver({ additionalHeaders: {}, maxDecodedSize: 1 });
    expect(await strangers.whoami(ALICE, signal())).toBeUndefined();
    expect(paths()).toEqual([]);
  });

  it("is an error when the homeserver does not know it", async () => {
    await expect(homeserver.whoami({ ...ALICE, authorization: "Bearer old" }, signal())).rejects.toMatchObject({ code: "unknown_token" });
  });

  it.each([
    ["no user", {}],
    ["a user that is none", { user_id: "alice" }],
    ["a name with line ends", { user_id: "@alice\r\nX-Client-IP: 1:example.org" }],
    ["a name without end", { user_id: `@${"a".repeat(300)}:example.org` }],
    ["a number", { user_id: 7 }],
    ["something else altogether", "@alice:example.org"],
    ["an answer without end", { user_id: "@alice:example.org", more: "x".repeat(100_000) }],
  ])("is an error when the homeserver says %s", async (_, answer) => {
    fake.whoami = () => answer;
    await expect(homeserver.whoami(ALICE, signal())).rejects.toMatchObject({ code: "homeserver_failed" });
  });

  it("is not asked of anybody else", async () => {
    await using other = await FakeHomeserver.start();
    other.addToken("alice");
    fake.behaviour = { redirectTo: `${other.url}/_matrix/client/v3/account/whoami` };
    await expect(homeserver.whoami(ALICE, signal())).rejects.toMatchObject({ code: expect.any(String) });
    expect(other.requests.every(({ headers }) => headers.authorization === undefined)).toBe(true);
  });
});

describe("where the homeserver is", () => {
  it("is its address at the moment", async () => {
    expect(await homeserver.address()).toBe("127.0.0.1");
    await reconnect({ baseUrl: `http://localhost:${fake.port}` });
    expect(["127.0.0.1", "::1"]).toContain(await homeserver.address());
    await reconnect({ baseUrl: "http://no-such-host.invalid" });
    expect(await homeserver.address()).toBeUndefined();
  });
});
