import { describe, expect, it } from "vitest";
import { IcapError, IcapService, type IcapScanRequest } from "../../../icap/index.ts";
import { codeOf, scan, until } from "../support/scan.ts";
import { CLEAN, type Script, scriptedServer, withBody } from "../support/scripted-server.ts";
import { clean, setUp } from "../support/set-up.ts";

async function* withEmptyPieces() {
  yield Buffer.alloc(0);
  yield Buffer.from("hel");
  yield Buffer.alloc(0);
  yield Buffer.from("lo");
  yield Buffer.alloc(0);
}

describe("a scan", () => {
  it("sends both heads, the length and the body, and believes the 204", async () => {
    let received = "";
    await using it = await setUp({
      complete: (peer) => {
        received = peer.received();
        peer.socket.write('ICAP/1.0 204 OK\r\nISTag: "tag-2"\r\n\r\n');
      },
    });
    const result = await scan(it.service, "hello world", { piece: 6, fileName: "a b/c?.pdf", contentType: "application/pdf" });
    expect(result).toEqual({ verdict: { outcome: "clean", how: "204" }, isTag: "tag-2", icapStatus: 204, replacement: undefined });
    const authority = new URL(it.server.url).host;
    const req = "GET http://media.invalid/a%20b%2Fc%3F.pdf HTTP/1.1\r\nHost: media.invalid\r\n\r\n";
    const res = "HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\nContent-Length: 11\r\n\r\n";
    expect(received).toBe(
      `RESPMOD icap://${authority}/scan ICAP/1.0\r\nHost: ${authority}\r\nUser-Agent: icap-scan/1.0\r\nAllow: 204\r\n` +
        `Encapsulated: req-hdr=0, res-hdr=${req.length}, res-body=${req.length + res.length}\r\n\r\n${req}${res}` +
        "6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n",
    );
  });

  it("gives OPTIONS' tag when the answer has none", async () => {
    await using it = await setUp(clean);
    expect((await scan(it.service, "hello")).isTag).toBe("tag-1");
  });

  it.each([
    ["in one chunk", "5\r\nhello\r\n0\r\n\r\n"],
    ["in many", "1\r\nh\r\n3\r\nell\r\n1\r\no\r\n0\r\n\r\n"],
  ])("believes an echo %s", async (_, chunks) => {
    await using it = await setUp({ complete: ({ socket }) => socket.write(withBody(chunks)) });
    expect((await scan(it.service, "hello")).verdict).toEqual({ outcome: "clean", how: "echo" });
    expect(it.service.stats()).toMatchObject({ open: 1, idle: 1 });
  });

  it("of nothing sends an empty body", async () => {
    let received = "";
    await using it = await setUp({
      complete: (peer) => {
        received = peer.received();
        peer.socket.write(CLEAN);
      },
    });
    expect((await scan(it.service, "")).verdict.outcome).toBe("clean");
    expect(received).toMatch(/Content-Length: 0\r\n\r\n0\r\n\r\n$/);
  });

  it("passes over empty pieces, which would end the body", async () => {
    let received = "";
    await using it = await setUp({
      complete: (peer) => {
        received = peer.received();
        peer.socket.write(CLEAN);
      },
    });
    await scan(it.service, "hello", { body: withEmptyPieces });
    expect(received).toMatch(/\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n$/);
  });

  it.each([
    ["shorter", 6],
    ["longer", 4],
    ["not empty", 0],
  ])("of a body that is %s than announced is no verdict, and the server never gets its last chunk", async (_, size) => {
    let complete = false;
    await using it = await setUp({
      begin: ({ socket }) => socket.write(withBody("5\r\nhello\r\n0\r\n\r\n").slice(0, 20)),
      complete: () => {
        complete = true;
      },
    });
    expect(await codeOf(scan(it.service, "hello", { size, piece: 1 }))).toBe("body_size");
    await until(() => it.server.count.open === 0);
    expect(complete).toBe(false);
  });

  it("fails with the body's own error, and the connection is closed", async () => {
    await using it = await setUp(clean);
    const error = new Error("the source broke");
    // oxlint-disable-next-line require-yield -- it breaks after its first piece
    async function* body(): AsyncGenerator<Uint8Array> {
      yield Buffer.from("hel");
      throw error;
    }
    await expect(scan(it.service, "hello", { body })).rejects.toBe(error);
    await until(() => it.server.count.open === 0);
    expect(it.service.stats()).toMatchObject({ open: 0, idle: 0, busy: 0, waiting: 0 });
  });

  it.each<[string, Partial<IcapScanRequest>]>([
    ["a line end in the name", { fileName: "a\r\nEvil: 1" }],
    ["no name", { fileName: "" }],
    ["half a character in the name", { fileName: "\ud800" }],
    ["a line end in the type", { contentType: "text/plain\r\nEvil: 1" }],
    ["no type", { contentType: "" }],
    ["a negative size", { size: -1 }],
    ["half a byte", { size: 0.5 }],
  ])("with %s is refused", async (_, request) => {
    await using it = await setUp(clean);
    await expect(scan(it.service, "hello", request)).rejects.toThrow(TypeError);
    expect(it.server.count.requests).toBe(0);
  });

  it("of what the source gives in one piece reaches the server in chunks of 64 KiB at most", async () => {
    const sizes: number[] = [];
    await using it = await setUp({
      complete: (peer) => {
        for (const [, size] of peer.received().matchAll(/\r\n([0-9a-f]+)\r\n/g)) sizes.push(Number.parseInt(size ?? "", 16));
        peer.socket.write(CLEAN);
      },
    });
    await scan(it.service, "x".repeat(200_000));
    expect(sizes).toEqual([65_536, 65_536, 65_536, 3_392, 0]);
  });
});

describe("an aborted scan ends", () => {
  it.each<[string, Script, number | undefined]>([
    ["before it begins", clean, 0],
    ["at OPTIONS", { options: null }, undefined],
    ["while the server does not read", { begin: ({ socket }) => socket.pause() }, undefined],
    ["while it waits for the answer", {}, undefined],
    ["in the middle of the answer", { complete: ({ socket }) => socket.write("ICAP/1.0 2") }, undefined],
  ])("%s, with the signal's reason and no connection left", async (_, script, connections) => {
    await using it = await setUp(script);
    const controller = new AbortController();
    const reason = new Error("enough");
    if (connections === 0) controller.abort(reason);
    else setTimeout(() => controller.abort(reason), 60);
    await expect(scan(it.service, "x".repeat(20_000_000), { signal: controller.signal })).rejects.toBe(reason);
    await until(() => it.service.stats().open === 0);
    expect(it.service.stats()).toMatchObject({ open: 0, idle: 0, busy: 0, waiting: 0 });
  });

  it("while its source is silent, and the source is told", async () => {
    await using it = await setUp(clean);
    const controller = new AbortController();
    let asked = false;
    let told = false;
    const body = (): AsyncIterable<Uint8Array> => ({
      [Symbol.asyncIterator]: () => ({
        next: () => {
          asked = true;
          return new Promise(() => undefined);
        },
        return: () => {
          told = true;
          return Promise.resolve({ value: undefined, done: true });
        },
      }),
    });
    const scanning = scan(it.service, "hello", { body, signal: controller.signal });
    await until(() => asked);
    controller.abort(new Error("enough"));
    await expect(scanning).rejects.toThrow("enough");
    expect(told).toBe(true);
  });
});

describe("a service that is", () => {
  it("not there", async () => {
    const server = await scriptedServer({});
    await server[Symbol.asyncDispose]();
    await using service = new IcapService({ url: server.url });
    const failed = scan(service, "hello");
    await expect(failed).rejects.toThrow(/^cannot connect to 127\.0\.0\.1:\d+: ECONNREFUSED$/);
    expect(await codeOf(failed)).toBe("connect_failed");
  });

  it("disposed of ends what is under way, what waits, and takes nothing more", async () => {
    await using server = await scriptedServer({});
    const service = new IcapService({ url: server.url, maxConnections: 1 });
    await service.options(new AbortController().signal);
    const running = codeOf(scan(service, "hello"));
    const waiting = codeOf(scan(service, "hello"));
    await until(() => service.stats().waiting === 1 && server.count.requests === 1);
    await service[Symbol.asyncDispose]();
    await service[Symbol.asyncDispose]();
    expect(await running).toBe("closed");
    expect(await waiting).toBe("closed");
    expect(await codeOf(scan(service, "hello"))).toBe("closed");
    await until(() => server.count.open === 0);
    expect(service.stats()).toMatchObject({ open: 0, idle: 0, busy: 0, waiting: 0 });
  });

  it("disposed of while it connects ends with that", async () => {
    await using server = await scriptedServer({ options: null });
    const service = new IcapService({ url: server.url });
    const options = service.options(new AbortController().signal);
    const code = codeOf(options);
    await service[Symbol.asyncDispose]();
    expect(await code).toBe("closed");
    await expect(options).rejects.toBeInstanceOf(IcapError);
  });
});
