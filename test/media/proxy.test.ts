/** Every request by way of a proxy, which resolves names by itself. */
import { once } from "node:events";
import { createServer, request } from "node:http";
import type { IncomingMessage, Server } from "node:http";
import { connect as connectTcp } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { buffer } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Homeserver } from "../../src/media/homeserver.ts";
import type { HomeserverOptions } from "../../src/media/homeserver.ts";
import type { Credentials } from "../../src/media/source.ts";
import { FakeHomeserver } from "../support/fake-homeserver.ts";
import { testCertificate, trustTestCertificate } from "../support/tls.ts";

const ALICE: Credentials = { authorization: "Bearer alice", forwarded: {} };
const BYTES = Buffer.from("a picture of a cat");

const PUBLIC = Promise.resolve([{ address: "8.8.8.8", family: 4 }] as const);
const INTERNAL = Promise.resolve([{ address: "10.0.0.1", family: 4 }] as const);

trustTestCertificate();

let proxy: Server;
let proxyUrl = "";
/** Method and target of what the proxy was asked for. */
let asked: string[];
let credentials: (string | undefined)[];
let tunnels: Socket[];
let homeserver: Homeserver | undefined;

beforeEach(async () => {
  asked = [];
  credentials = [];
  tunnels = [];
  const note = (message: IncomingMessage): void => {
    asked.push(`${message.method} ${message.url}`);
    credentials.push(message.headers["proxy-authorization"]);
  };
  proxy = createServer((incoming, response) => {
    note(incoming);
    request(incoming.url ?? "", { headers: incoming.headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    }).end();
  });
  proxy.on("connect", (incoming: IncomingMessage, socket: Socket) => {
    note(incoming);
    // Whatever the name: this proxy knows loopback only.
    const upstream = connectTcp(Number(incoming.url?.split(":").at(-1)), "127.0.0.1");
    tunnels.push(socket, upstream);
    for (const end of [socket, upstream]) end.on("error", () => {});
    upstream.once("connect", () => socket.write("HTTP/1.1 200 Connection established\r\n\r\n"));
    socket.pipe(upstream).pipe(socket);
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  proxyUrl = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
});

afterEach(async () => {
  await homeserver?.[Symbol.asyncDispose]();
  for (const tunnel of tunnels) tunnel.destroy();
  proxy.close();
  proxy.closeAllConnections();
  await once(proxy, "close");
});

function connect(options: Partial<HomeserverOptions>): Homeserver {
  homeserver = new Homeserver({ proxy: proxyUrl, additionalHeaders: {}, maxDecodedSize: 1024, ...options });
  return homeserver;
}

const fetchCat = (homeserver: Homeserver, serverName: string) =>
  homeserver.fetch({ serverName, mediaId: "cat" }, { kind: "download" }, ALICE, AbortSignal.timeout(20_000));

describe("a configured homeserver", () => {
  it("over http is asked for through the proxy, which gets its own credentials", async () => {
    await using home = await FakeHomeserver.start();
    home.addToken("alice");
    home.put("cat", { bytes: BYTES });
    const media = await fetchCat(connect({ baseUrl: home.url, proxy: proxyUrl.replace("//", "//user:pass@") }), "example.org");
    expect(await buffer(media.body)).toEqual(BYTES);
    expect(asked).toEqual([`GET ${home.url}/_matrix/client/v1/media/download/example.org/cat?timeout_ms=10000`]);
    expect(credentials).toEqual([`Basic ${btoa("user:pass")}`]);
    expect(home.requests[0]?.headers.authorization).toBe("Bearer alice");
  });

  it("over https is asked for in a tunnel, by its name", async () => {
    await using home = await FakeHomeserver.start({ tls: testCertificate });
    home.addToken("alice");
    home.put("cat", { bytes: BYTES });
    const media = await fetchCat(connect({ baseUrl: `https://hs.example.test:${home.port}` }), "example.org");
    expect(await buffer(media.body)).toEqual(BYTES);
    expect(asked).toEqual([`CONNECT hs.example.test:${home.port}`]);
    expect(home.requests[0]?.headers).toMatchObject({ authorization: "Bearer alice", host: `hs.example.test:${home.port}` });
  });

  it("has its certificate proved for its own name, whatever Host is forwarded", async () => {
    await using home = await FakeHomeserver.start({ tls: testCertificate });
    home.addToken("alice");
    home.put("cat", { bytes: BYTES });
    const homeserver = connect({ baseUrl: `https://hs.example.net:${home.port}` });
    const credentials = { ...ALICE, forwarded: { host: "hs.example.test" } };
    const fetched = homeserver.fetch(
      { serverName: "example.org", mediaId: "cat" },
      { kind: "download" },
      credentials,
      AbortSignal.timeout(20_000),
    );
    await expect(fetched).rejects.toMatchObject({ code: "homeserver_failed" });
    expect(home.requests).toEqual([]);
  });
});

describe("a discovered server", () => {
  it("is asked for by the address that was checked, and proved by its name", async () => {
    await using named = await FakeHomeserver.start({ tls: testCertificate });
    const serverName = `media.example.test:${named.port}`;
    named.put("cat", { bytes: BYTES, unauthenticated: true }, serverName);
    const media = await fetchCat(connect({ resolve: () => PUBLIC }), serverName);
    expect(await buffer(media.body)).toEqual(BYTES);
    expect(new Set(asked)).toEqual(new Set([`CONNECT 8.8.8.8:${named.port}`]));
    expect(named.requests.map(({ headers }) => headers.host)).toEqual([serverName, serverName]);
    expect(named.requests.every(({ headers }) => headers.authorization === undefined)).toBe(true);
  });

  it("with another's certificate is refused", async () => {
    await using named = await FakeHomeserver.start({ tls: testCertificate });
    await expect(fetchCat(connect({ resolve: () => PUBLIC }), `media.example.net:${named.port}`)).rejects.toMatchObject({
      code: "homeserver_failed",
    });
    expect(named.requests).toEqual([]);
  });

  it.each(["media.example.test", "127.0.0.1", "[::1]"])("at an internal address (%s) the proxy is not asked for", async (host) => {
    await expect(fetchCat(connect({ resolve: () => INTERNAL }), `${host}:8448`)).rejects.toMatchObject({ code: "homeserver_failed" });
    expect(asked).toEqual([]);
  });
});
