/** Without a configured homeserver: media from the server in its mxc URI, which an attacker may have chosen. */
import { buffer } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { isPublicAddress } from "../../src/media/address-guard.ts";
import { Homeserver } from "../../src/media/homeserver.ts";
import type { HomeserverOptions } from "../../src/media/homeserver.ts";
import type { Credentials, FetchedMedia } from "../../src/media/source.ts";
import { FakeHomeserver } from "../support/fake-homeserver.ts";
import { testCertificate, trustTestCertificate } from "../support/tls.ts";

const ALICE: Credentials = { authorization: "Bearer alice", forwarded: { "x-forwarded-for": "192.0.2.7" } };
const BYTES = Buffer.from("a picture of a cat");
const ON_LOOPBACK = () => Promise.resolve([{ address: "127.0.0.1", family: 4 }] as const);
const FAILED = { code: "homeserver_failed", status: 502 };
const WELL_KNOWN = "/.well-known/matrix/client";

trustTestCertificate();

/** What the server name in the URI answers, and where its well-known file may point. */
let named: FakeHomeserver;
let delegated: FakeHomeserver;
let homeserver: Homeserver;
let now = 0;

function connect(options: Partial<HomeserverOptions> = {}): Homeserver {
  return new Homeserver({
    additionalHeaders: { "user-agent": "scanner", "x-gateway": "secret" },
    maxDecodedSize: 1024,
    timeouts: { connect: 1000, headers: 1000, bodyIdle: 1000 },
    resolve: ON_LOOPBACK,
    isAllowedAddress: () => true,
    clock: () => now,
    ...options,
  });
}

beforeEach(async () => {
  now = Date.parse("2026-11-22T00:00:00Z");
  named = await FakeHomeserver.start({ tls: testCertificate });
  delegated = await FakeHomeserver.start({ tls: testCertificate });
  for (const server of [named, delegated]) server.put("cat", { bytes: BYTES, unauthenticated: true }, serverName());
  homeserver = connect();
});

afterEach(async () => {
  await homeserver[Symbol.asyncDispose]();
  await named[Symbol.asyncDispose]();
  await delegated[Symbol.asyncDispose]();
});

const serverName = (): string => `media.example.test:${named.port}`;

function fetchCat(signal: AbortSignal = AbortSignal.timeout(20_000), server = serverName()): Promise<FetchedMedia> {
  return homeserver.fetch({ serverName: server, mediaId: "cat" }, { kind: "download" }, ALICE, signal);
}

async function reconnect(options: Partial<HomeserverOptions>): Promise<void> {
  await homeserver[Symbol.asyncDispose]();
  homeserver = connect(options);
}

/** Everything is on loopback: the address of the named server is taken for public, any other is not. */
async function reconnectGuarded(): Promise<void> {
  await reconnect({
    resolve: (name) => Promise.resolve([{ address: name === "media.example.test" ? "127.0.0.1" : "127.0.0.2", family: 4 }]),
    isAllowedAddress: (address) => address === "127.0.0.1",
  });
}

/** How often the well-known file was asked for. */
const lookUps = (): number => named.requests.filter(({ path }) => path === WELL_KNOWN).length;
const mediaRequests = (server: FakeHomeserver): string[] => server.requests.map(({ path }) => path).filter((path) => path !== WELL_KNOWN);

/** Fetches again so many minutes later. */
async function lookUpsAfter(minutes: number): Promise<number> {
  now += minutes * 60_000;
  await buffer((await fetchCat()).body);
  return lookUps();
}

describe("discovery", () => {
  it("goes where the well-known file points", async () => {
    named.wellKnown = { "m.homeserver": { base_url: `https://hs.example.test:${delegated.port}/` } };
    expect(await buffer((await fetchCat()).body)).toEqual(BYTES);
    expect(mediaRequests(named)).toEqual([]);
    expect(mediaRequests(delegated)).toEqual([`/_matrix/media/v3/download/media.example.test%3A${named.port}/cat?timeout_ms=10000`]);
  });

  it("sends no token, forwarded or added header anywhere", async () => {
    named.wellKnown = { "m.homeserver": { base_url: `https://hs.example.test:${delegated.port}` } };
    await buffer((await fetchCat()).body);
    const requests = [...named.requests, ...delegated.requests];
    expect(requests).toHaveLength(2);
    for (const { headers } of requests) {
      expect(Object.keys(headers).sort()).toEqual(["accept-encoding", "connection", "host", "user-agent"]);
      expect(headers["user-agent"]).toBe("scanner");
    }
  });

  it.each([
    undefined,
    "not JSON",
    "[]",
    "null",
    '"m.homeserver"',
    { "m.homeserver": "https://hs.example.test" },
    { "m.homeserver": { base_url: 1 } },
    { "m.homeserver": { base_url: "" } },
    { "m.homeserver": { base_url: "hs.example.test" } },
    { "m.homeserver": { base_url: "http://hs.example.test" } },
    { "m.homeserver": { base_url: "https://hs.example.test/?x=1" } },
    { "m.homeserver": { base_url: "https://user@hs.example.test/" } },
    { "m.homeserver": { base_url: `https://hs.example.test/${"x".repeat(2000)}` } },
    { padding: "x".repeat(70_000), "m.homeserver": { base_url: "https://hs.example.test" } },
  ])("asks the named server itself, if its file is %.60j", async (wellKnown) => {
    named.wellKnown = wellKnown;
    expect(await buffer((await fetchCat()).body)).toEqual(BYTES);
    expect(mediaRequests(named)).toHaveLength(1);
  });

  it("asks again after an hour, and after two minutes if it failed", async () => {
    expect(await lookUpsAfter(0)).toBe(1);
    expect(await lookUpsAfter(59)).toBe(1);
    named.wellKnown = "not JSON";
    expect(await lookUpsAfter(2)).toBe(2);
    expect(await lookUpsAfter(1)).toBe(2);
    expect(await lookUpsAfter(2)).toBe(3);
  });

  it("asks once for requests that come together", async () => {
    const all = await Promise.all([fetchCat(), fetchCat(), fetchCat()]);
    for (const media of all) expect(await buffer(media.body)).toEqual(BYTES);
    expect(lookUps()).toBe(1);
  });

  it("goes on when one of those who wait leaves", async () => {
    const leaving = new AbortController();
    const reason = new Error("the client left");
    const left = fetchCat(leaving.signal);
    const stays = fetchCat();
    leaving.abort(reason);
    await expect(left).rejects.toBe(reason);
    expect(await buffer((await stays).body)).toEqual(BYTES);
    expect(lookUps()).toBe(1);
  });

  it("ends when the last of them leaves, and is not remembered", async () => {
    await reconnect({ timeouts: {} });
    named.behaviour = { stall: "headers" };
    const leaving = new AbortController();
    const left = fetchCat(leaving.signal);
    while (lookUps() === 0) await sleep(5);
    leaving.abort();
    await expect(left).rejects.toMatchObject({ name: "AbortError" });
    while ((await named.connections()) > 0) await sleep(5);
    named.behaviour = {};
    expect(await buffer((await fetchCat()).body)).toEqual(BYTES);
    expect(lookUps()).toBe(2);
  });

  it("a server that can't be reached fails, as media that is not there does", async () => {
    await expect(fetchCat(undefined, "media.example.net")).rejects.toMatchObject(FAILED);
    named.remove("cat", serverName());
    await expect(fetchCat()).rejects.toMatchObject({ code: "not_found" });
  });

  it("a stranger's 401 logs nobody out", async () => {
    await buffer((await fetchCat()).body);
    named.behaviour = { answer: { status: 401, body: { errcode: "M_UNKNOWN_TOKEN", error: "?" } } };
    await expect(fetchCat()).rejects.toMatchObject(FAILED);
  });
});

describe("addresses that are not public", () => {
  it.each([
    "127.0.0.1",
    "localhost",
    "0x7f.1",
    "2130706433",
    "127.1",
    "0",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "media.example.test",
  ])("the server name %s is not even connected to", async (host) => {
    await using inside = await FakeHomeserver.start({ tls: testCertificate });
    await reconnect({ isAllowedAddress: isPublicAddress });
    await expect(fetchCat(undefined, `${host}:${inside.port}`)).rejects.toMatchObject(FAILED);
    expect(inside.accepted).toBe(0);
  });

  it.each(["https://127.0.0.2", "https://inside.example.test", "http://media.example.test"])(
    "a well-known file can't point to %s",
    async (origin) => {
      await reconnectGuarded();
      named.wellKnown = { "m.homeserver": { base_url: `${origin}:${delegated.port}` } };
      const outcome = fetchCat().then((media) => buffer(media.body));
      // An address or scheme that is refused on sight is no base URL at all; a name is refused when it is connected to.
      if (origin === "https://inside.example.test") await expect(outcome).rejects.toMatchObject(FAILED);
      else expect(await outcome).toEqual(BYTES);
      expect(delegated.requests).toEqual([]);
    },
  );

  it.each(["https://127.0.0.2", "https://inside.example.test", "http://media.example.test"])(
    "nor a redirect of the well-known file or of media to %s",
    async (origin) => {
      await reconnectGuarded();
      named.behaviour = { redirectTo: `${origin}:${delegated.port}/` };
      await expect(fetchCat()).rejects.toMatchObject(FAILED);
      expect(named.requests.length).toBeGreaterThan(1);
      expect(delegated.requests).toEqual([]);
    },
  );
});
