/** Homeservers that lie, stall, cut short, compress: in each case either exactly the media's bytes come out, or an error does. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { brotliCompressSync, constants, createZstdCompress, deflateSync, gzipSync, zstdCompressSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Homeserver } from "../../src/media/homeserver.ts";
import type { HomeserverOptions } from "../../src/media/homeserver.ts";
import type { Credentials, FetchedMedia } from "../../src/media/source.ts";
import { FakeHomeserver } from "../support/fake-homeserver.ts";
import type { Behaviour } from "../support/fake-homeserver.ts";

const ALICE: Credentials = { authorization: "Bearer alice", forwarded: {} };
const CAT = { serverName: "example.org", mediaId: "cat" };
const BYTES = Buffer.from(Array.from({ length: 200_000 }, (_, i) => (i * 31) % 251));
const FAILED = { code: "homeserver_failed", status: 502 };

let fake: FakeHomeserver;
let homeserver: Homeserver;
let abort: AbortController;

function connect(options: Partial<HomeserverOptions> = {}): Homeserver {
  return new Homeserver({
    baseUrl: fake.url,
    additionalHeaders: {},
    maxDecodedSize: 1024 * 1024,
    timeouts: { connect: 500, headers: 200, bodyIdle: 200 },
    ...options,
  });
}

beforeEach(async () => {
  fake = await FakeHomeserver.start();
  fake.addToken("alice");
  homeserver = connect();
  abort = new AbortController();
});

afterEach(async () => {
  await homeserver[Symbol.asyncDispose]();
  await fake[Symbol.asyncDispose]();
});

/** With time limits that don't end an exchange in the signal's place. */
async function reconnectPatiently(): Promise<void> {
  await homeserver[Symbol.asyncDispose]();
  homeserver = connect({ timeouts: {} });
}

function fetchCat(): Promise<FetchedMedia> {
  return homeserver.fetch(CAT, { kind: "download" }, ALICE, abort.signal);
}

function fetchFrom(behaviour: Behaviour, bytes: Uint8Array = BYTES): Promise<FetchedMedia> {
  fake.put("cat", { bytes, behaviour });
  return fetchCat();
}

/** Waits, for as long as the test may last, until the homeserver sees no connection any more. */
async function untilDisconnected(): Promise<void> {
  while ((await fake.connections()) > 0) await sleep(5);
}

describe("bodies", () => {
  it("comes whole when it is chunked, without a size", async () => {
    const media = await fetchFrom({ chunked: true });
    expect(media.size).toBeUndefined();
    expect(await buffer(media.body)).toEqual(BYTES);
  });

  it("comes whole when it drips", async () => {
    const media = await fetchFrom({ drip: { bytes: 1, pause: 1 } }, Buffer.from("slowly"));
    expect((await buffer(media.body)).toString()).toBe("slowly");
  });

  it("is empty when the media is", async () => {
    const media = await fetchFrom({}, Buffer.alloc(0));
    expect(media.size).toBe(0);
    expect(await buffer(media.body)).toHaveLength(0);
  });

  it("is what the homeserver has now, not what it had", async () => {
    expect(await buffer((await fetchFrom({}, Buffer.from("first"))).body)).toEqual(Buffer.from("first"));
    expect(await buffer((await fetchFrom({}, Buffer.from("second"))).body)).toEqual(Buffer.from("second"));
  });

  it.each([
    { cutAfter: 100_000 },
    { cutAfter: 0 },
    { cutAfter: 100_000, chunked: true },
    { cutAfter: 1000, contentEncoding: "gzip" },
  ] as const)("fails when it is cut short: %j", async (behaviour) => {
    // Random bytes, so that compressed ones are longer than what is sent of them.
    const media = await fetchFrom(behaviour, randomBytes(200_000));
    await expect(buffer(media.body)).rejects.toMatchObject(FAILED);
  });

  it.each([{ stall: "body" }, { stallAfter: 100_000 }, { stallAfter: 100_000, chunked: true }] as const)(
    "fails when it stalls: %j",
    async (behaviour) => {
      const media = await fetchFrom(behaviour);
      await expect(buffer(media.body)).rejects.toMatchObject(FAILED);
      await untilDisconnected();
    },
  );

  it("waits for a reader that is slower than the time a homeserver may stall", async () => {
    const media = await fetchFrom({}, Buffer.alloc(4 * 1024 * 1024, 1));
    await sleep(600);
    expect(await buffer(media.body)).toHaveLength(4 * 1024 * 1024);
  });

  it("fails when the homeserver stalls after a pause of the reader", async () => {
    const media = await fetchFrom({ stallAfter: 1024 * 1024 }, Buffer.alloc(4 * 1024 * 1024, 1));
    await sleep(600);
    await expect(buffer(media.body)).rejects.toMatchObject(FAILED);
  });

  it("keeps its failure for a reader that comes later", async () => {
    const media = await fetchFrom({ cutAfter: 10 });
    await untilDisconnected();
    await sleep(50);
    await expect(buffer(media.body)).rejects.toMatchObject(FAILED);
  });

  it.each([{ stallAfter: 10 }, { stallAfter: 10, contentEncoding: "gzip" }] as const)(
    "ends the exchange when it is destroyed: %j",
    async (behaviour) => {
      const media = await fetchFrom(behaviour);
      media.body.destroy();
      await untilDisconnected();
    },
  );

  it("is not read ahead of its reader", async () => {
    fake.put("cat", { bytes: Buffer.alloc(64 * 1024 * 1024, 1) });
    const before = process.memoryUsage().arrayBuffers;
    const media = await fetchCat();
    await media.body[Symbol.asyncIterator]().next();
    await sleep(100);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 * 1024 * 1024);
    media.body.destroy();
    await untilDisconnected();
  });
});

describe("before the body", () => {
  it("fails when the homeserver never answers", async () => {
    await expect(fetchFrom({ stall: "headers" })).rejects.toMatchObject(FAILED);
  });

  it("fails when the homeserver hangs up", async () => {
    await expect(fetchFrom({ hangUp: true })).rejects.toMatchObject(FAILED);
  });

  it("takes no part for the whole", async () => {
    await expect(fetchFrom({ partial: true })).rejects.toMatchObject(FAILED);
  });

  it("fails when the head is too large", async () => {
    await expect(fetchFrom({ headers: { "x-large": "x".repeat(20_000) } })).rejects.toMatchObject(FAILED);
  });
});

describe("Content-Encoding that nobody asked for", () => {
  it.each(["gzip", "deflate", "br", "zstd"] as const)("%s is undone", async (contentEncoding) => {
    const media = await fetchFrom({ contentEncoding });
    expect(media.size).toBeUndefined();
    expect(await buffer(media.body)).toEqual(BYTES);
  });

  it.each(["gzip", "deflate", "br", "zstd"] as const)("%s that ends early fails", async (contentEncoding) => {
    const encode = { gzip: gzipSync, deflate: deflateSync, br: brotliCompressSync, zstd: zstdCompressSync }[contentEncoding];
    const cut = encode(BYTES).subarray(0, -8);
    const media = await fetchFrom({ headers: { "content-encoding": contentEncoding } }, cut);
    await expect(buffer(media.body)).rejects.toMatchObject(FAILED);
  });

  it.each(["gzip", "deflate", "br", "zstd"] as const)("a bomb in %s goes off outside", async (contentEncoding) => {
    const media = await fetchFrom({ contentEncoding }, Buffer.alloc(4 * 1024 * 1024));
    let seen = 0;
    await expect(
      (async () => {
        for await (const chunk of media.body as AsyncIterable<Buffer>) seen += chunk.length;
      })(),
    ).rejects.toMatchObject({ code: "too_large" });
    expect(seen).toBeLessThanOrEqual(1024 * 1024);
  });

  it.each([
    [23, true],
    [24, false],
  ])("a zstd window of 2^%i bytes is taken: %s", async (windowLog, taken) => {
    const bytes = Buffer.alloc(100_000, 1);
    // In a stream: the encoder makes the window smaller when it knows the size.
    const encoder = createZstdCompress({ params: { [constants.ZSTD_c_windowLog]: windowLog } });
    const encoded = await buffer(Readable.from([bytes]).pipe(encoder));
    const media = await fetchFrom({ headers: { "content-encoding": "zstd" } }, encoded);
    if (taken) expect((await buffer(media.body)).equals(bytes)).toBe(true);
    else await expect(buffer(media.body)).rejects.toMatchObject(FAILED);
  });

  it.each(["compress", "gzip, gzip", "gzip, br", "x", "aws-chunked"])("%s is refused", async (encoding) => {
    await expect(fetchFrom({ headers: { "content-encoding": encoding } })).rejects.toMatchObject(FAILED);
    await untilDisconnected();
  });

  it("bytes that are not what it says fail", async () => {
    const media = await fetchFrom({ headers: { "content-encoding": "gzip" } });
    await expect(buffer(media.body)).rejects.toMatchObject(FAILED);
  });

  it("twice the same layer is undone once only", async () => {
    const twice = gzipSync(gzipSync(BYTES));
    const media = await fetchFrom({ headers: { "content-encoding": "gzip" } }, twice);
    expect(await buffer(media.body)).toEqual(gzipSync(BYTES));
  });

  it("identity is none", async () => {
    const media = await fetchFrom({ headers: { "content-encoding": "identity" } });
    expect(media.size).toBe(BYTES.length);
    expect(await buffer(media.body)).toEqual(BYTES);
  });
});

describe("the signal", () => {
  const reason = new Error("the client left");

  it("aborts before anything is sent", async () => {
    abort.abort(reason);
    await expect(fetchFrom({})).rejects.toBe(reason);
    expect(fake.requests).toEqual([]);
  });

  it("aborts while the homeserver has not answered", async () => {
    await reconnectPatiently();
    const fetched = fetchFrom({ stall: "headers" });
    setTimeout(() => abort.abort(reason), 20);
    await expect(fetched).rejects.toBe(reason);
    await untilDisconnected();
  });

  it("aborts a body, also one that nobody reads yet", async () => {
    await reconnectPatiently();
    const media = await fetchFrom({ stallAfter: 10 });
    abort.abort(reason);
    await untilDisconnected();
    await expect(buffer(media.body)).rejects.toBe(reason);
  });
});

describe("lies on the wire", () => {
  let server: Server;
  let sockets: Socket[];

  afterEach(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
    await once(server, "close");
  });

  /** A homeserver that answers each request on a connection with the next of these bytes. */
  async function fetchRaw(...answers: string[]): Promise<FetchedMedia> {
    sockets = [];
    let next = 0;
    server = createServer((socket) => {
      sockets.push(socket);
      socket.on("error", () => {});
      socket.on("data", () => socket.write(answers[Math.min(next++, answers.length - 1)] ?? "", "latin1"));
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    await homeserver[Symbol.asyncDispose]();
    homeserver = connect({ baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
    return fetchCat();
  }

  it("bytes past the Content-Length are no part of this media, nor the head of the next", async () => {
    const lie = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ncat!HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    const media = await fetchRaw(lie, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ncat2");
    expect((await buffer(media.body)).toString()).toBe("cat!");
    const next = await fetchCat();
    expect((await buffer(next.body)).toString()).toBe("cat2");
  });

  it.each([
    ["no HTTP at all", "SSH-2.0-OpenSSH_9.2\r\n"],
    ["two lengths that differ", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\ncat!"],
    ["a length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ncat!\r\n0\r\n\r\n"],
    ["a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\ncat!"],
    ["a head without an end", `HTTP/1.1 200 OK\r\nX: ${"x".repeat(100_000)}`],
    ["a switch of protocols", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"],
    ["nothing but provisional answers", "HTTP/1.1 103 Early Hints\r\n\r\n"],
  ])("%s fails", async (_, answer) => {
    await expect(fetchRaw(answer)).rejects.toMatchObject(FAILED);
  });

  it("a chunk size that is none fails", async () => {
    const media = await fetchRaw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ncat!\r\nzzz\r\n");
    await expect(buffer(media.body)).rejects.toMatchObject(FAILED);
  });

  it("a header that came twice is not believed", async () => {
    const media = await fetchRaw("HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\ncat!");
    expect(media.contentType).toBeUndefined();
    expect((await buffer(media.body)).toString()).toBe("cat!");
  });

  it("a kept connection that closes under the next request is replaced, once", async () => {
    const answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ncat!";
    expect((await buffer((await fetchRaw(answer, "", answer)).body)).toString()).toBe("cat!");
    // Until the connection counts as idle, the pool would rather open another.
    await sleep(50);
    sockets[0]?.once("data", () => sockets[0]?.destroy());
    expect((await buffer((await fetchCat()).body)).toString()).toBe("cat!");
    expect(sockets).toHaveLength(2);
  });

  it("quotes next to nothing of what the homeserver sent", async () => {
    const answer = `HTTP/1.1 200 OK\r\nBad Header ${"x".repeat(5000)}\r\n\r\n`;
    const error = await fetchRaw(answer).catch((error: unknown) => error);
    expect(error).toMatchObject(FAILED);
    expect(error).toHaveProperty("cause", undefined);
    expect(String(error).length).toBeLessThan(400);
  });
});
