/** Where the configured homeserver sends a request on to, and what goes along. */
import { buffer } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Homeserver } from "../../src/media/homeserver.ts";
import type { HomeserverOptions } from "../../src/media/homeserver.ts";
import type { Credentials, FetchedMedia } from "../../src/media/source.ts";
import { FakeHomeserver } from "../support/fake-homeserver.ts";
import { testCertificate, trustTestCertificate } from "../support/tls.ts";

const ALICE: Credentials = { authorization: "Bearer alice", forwarded: { "x-forwarded-for": "192.0.2.7" } };
const CAT = { serverName: "example.org", mediaId: "cat" };
const BYTES = Buffer.from("a picture of a cat");
const ON_LOOPBACK = () => Promise.resolve([{ address: "127.0.0.1", family: 4 }] as const);
const FAILED = { code: "homeserver_failed", status: 502 };

trustTestCertificate();

let home: FakeHomeserver;
let cdn: FakeHomeserver;
let homeserver: Homeserver;

function connect(options: Partial<HomeserverOptions>): Homeserver {
  const additionalHeaders = { "user-agent": "scanner", "x-gateway": "secret" };
  return new Homeserver({ baseUrl: home.url, additionalHeaders, maxDecodedSize: 1024, resolve: ON_LOOPBACK, ...options });
}

beforeEach(async () => {
  home = await FakeHomeserver.start();
  home.addToken("alice");
  cdn = await FakeHomeserver.start({ tls: testCertificate });
  cdn.behaviour = { answer: { status: 200, body: BYTES } };
  // The CDN of these tests is on loopback; those about addresses go without this.
  homeserver = connect({ isAllowedAddress: () => true });
});

afterEach(async () => {
  await homeserver[Symbol.asyncDispose]();
  await home[Symbol.asyncDispose]();
  await cdn[Symbol.asyncDispose]();
});

function fetchRedirected(redirectTo: string, status = 307): Promise<FetchedMedia> {
  home.put("cat", { bytes: BYTES, behaviour: { redirectTo, answer: { status } } });
  return homeserver.fetch(CAT, { kind: "download" }, ALICE, AbortSignal.timeout(20_000));
}

describe("within the homeserver's origin", () => {
  it.each([301, 302, 303, 307, 308])("%i is followed, with the token", async (status) => {
    home.put("there", { bytes: BYTES });
    const media = await fetchRedirected("/_matrix/client/v1/media/download/example.org/there", status);
    expect(await buffer(media.body)).toEqual(BYTES);
    expect(home.requests.map(({ headers }) => headers.authorization)).toEqual(["Bearer alice", "Bearer alice"]);
  });

  it("a loop ends", async () => {
    await expect(fetchRedirected("/_matrix/client/v1/media/download/example.org/cat")).rejects.toMatchObject(FAILED);
    expect(home.requests).toHaveLength(4);
  });

  it.each(["", "https://", "http://[", "data:,cat", "file:///etc/passwd", "javascript:1"])("%j is no place to go", async (location) => {
    home.put("cat", { bytes: BYTES, behaviour: { answer: { status: 307, headers: { location } } } });
    await expect(homeserver.fetch(CAT, { kind: "download" }, ALICE, AbortSignal.timeout(20_000))).rejects.toMatchObject(FAILED);
  });

  it("a redirect without a Location fails", async () => {
    home.put("cat", { bytes: BYTES, behaviour: { answer: { status: 307 } } });
    await expect(homeserver.fetch(CAT, { kind: "download" }, ALICE, AbortSignal.timeout(20_000))).rejects.toMatchObject(FAILED);
  });
});

describe("to another origin", () => {
  it("is followed, and gets neither token nor forwarded nor added headers", async () => {
    const media = await fetchRedirected(`https://cdn.example.test:${cdn.port}/signed?sig=1#fragment`);
    expect(await buffer(media.body)).toEqual(BYTES);
    expect(cdn.requests).toHaveLength(1);
    expect(cdn.requests[0]?.path).toBe("/signed?sig=1");
    expect(Object.keys(cdn.requests[0]?.headers ?? {}).sort()).toEqual(["accept-encoding", "connection", "host", "user-agent"]);
    expect(cdn.requests[0]?.headers).toMatchObject({ "user-agent": "scanner", host: `cdn.example.test:${cdn.port}` });
  });

  it("another port of the same host is another origin", async () => {
    await fetchRedirected(`https://127.0.0.1:${cdn.port}/`);
    expect(cdn.requests[0]?.headers).not.toHaveProperty("authorization");
  });

  it("back at the homeserver the token is not sent again", async () => {
    await using home = await FakeHomeserver.start({ tls: testCertificate });
    home.addToken("alice");
    await homeserver[Symbol.asyncDispose]();
    homeserver = connect({ baseUrl: home.url, isAllowedAddress: () => true });
    home.put("cat", { bytes: BYTES, behaviour: { redirectTo: `https://cdn.example.test:${cdn.port}/` } });
    cdn.behaviour = { redirectTo: `${home.url}/_matrix/client/v1/media/download/example.org/other` };
    await expect(homeserver.fetch(CAT, { kind: "download" }, ALICE, AbortSignal.timeout(20_000))).rejects.toMatchObject(FAILED);
    expect(home.requests.map(({ headers }) => headers.authorization)).toEqual(["Bearer alice", undefined]);
  });

  it("its 401 logs nobody out", async () => {
    cdn.behaviour = { answer: { status: 401, body: { errcode: "M_UNKNOWN_TOKEN", error: "?" } } };
    await expect(fetchRedirected(`https://cdn.example.test:${cdn.port}/`)).rejects.toMatchObject(FAILED);
  });

  it("a certificate for another name is refused", async () => {
    await expect(fetchRedirected(`https://cdn.example.net:${cdn.port}/`)).rejects.toMatchObject(FAILED);
    expect(cdn.requests).toEqual([]);
  });

  it("user information is refused", async () => {
    await expect(fetchRedirected(`https://user@cdn.example.test:${cdn.port}/`)).rejects.toMatchObject(FAILED);
    expect(cdn.requests).toEqual([]);
  });
});

describe("to an address that is not public", () => {
  beforeEach(async () => {
    await homeserver[Symbol.asyncDispose]();
    homeserver = connect({});
  });

  it.each(["127.0.0.1", "localhost", "0x7f.1", "2130706433", "127.1", "0.0.0.0", "[::ffff:127.0.0.1]", "[::1]", "inside.example.test"])(
    "https://%s is not even connected to",
    async (host) => {
      await expect(fetchRedirected(`https://${host}:${cdn.port}/`)).rejects.toMatchObject({
        ...FAILED,
        message: expect.stringContaining("ERR_ADDRESS_REFUSED"),
      });
      expect(cdn.accepted).toBe(0);
      expect(cdn.requests).toEqual([]);
    },
  );

  it("nor is anything over plain http", async () => {
    await using inside = await FakeHomeserver.start();
    await expect(fetchRedirected(`${inside.url}/`)).rejects.toMatchObject(FAILED);
    expect(inside.requests).toEqual([]);
  });

  it("nor a name that resolves to a public and to an internal address", async () => {
    await homeserver[Symbol.asyncDispose]();
    homeserver = connect({
      resolve: () =>
        Promise.resolve([
          { address: "8.8.8.8", family: 4 },
          { address: "127.0.0.1", family: 4 },
        ] as const),
    });
    await expect(fetchRedirected(`https://inside.example.test:${cdn.port}/`)).rejects.toMatchObject({
      message: expect.stringContaining("ERR_ADDRESS_REFUSED"),
    });
    expect(cdn.requests).toEqual([]);
  });
});
