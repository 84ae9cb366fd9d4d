import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import type { IcapScanRequest, IcapServiceOptions } from "../../../icap/index.ts";
import { codeOf, scan, until } from "../support/scan.ts";
import { CLEAN, type Script, withBody } from "../support/scripted-server.ts";
import { setUp } from "../support/set-up.ts";

const HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n";

/** Scans `hello world` against this answer, and keeps what comes back. */
async function returning(
  text: string,
  request: Partial<IcapScanRequest> = {},
  { options, script }: { options?: Partial<IcapServiceOptions>; script?: Script } = {},
) {
  await using it = await setUp(script ?? { complete: ({ socket }) => socket.write(text) }, options);
  let body = "";
  const returned = (bytes: Uint8Array): Promise<void> => {
    body += Buffer.from(bytes).toString();
    return Promise.resolve();
  };
  const result = await scan(it.service, "hello world", { returned, ...request });
  return { ...result, body, idle: it.service.stats().idle };
}

describe("a body that comes back", () => {
  it("in the file's place is handed over whole", async () => {
    expect(await returning(withBody("6\r\nhello \r\n5\r\nthere\r\n0\r\n\r\n", HEAD))).toMatchObject({
      verdict: { outcome: "modified" },
      body: "hello there",
      replacement: { size: 11, contentType: "text/plain" },
      idle: 1,
    });
  });

  it("may be longer than the file", async () => {
    const long = "x".repeat(100_000);
    const { body, replacement } = await returning(withBody(`${long.length.toString(16)}\r\n${long}\r\n0\r\n\r\n`, HEAD));
    expect(replacement?.size).toBe(long.length);
    expect(body).toBe(long);
  });

  it("as it was sent is handed over as well, and replaces nothing", async () => {
    const echo = await returning(withBody("b\r\nhello world\r\n0\r\n\r\n", HEAD));
    expect(echo).toMatchObject({ verdict: { outcome: "clean", how: "echo" }, body: "hello world", replacement: undefined, idle: 1 });
  });

  it.each([
    ["the beginning of the file", withBody("5\r\nhello\r\n0\r\n\r\n", HEAD)],
    ["the file and more", withBody("c\r\nhello world!\r\n0\r\n\r\n", HEAD)],
    ["nothing", withBody("0\r\n\r\n", HEAD)],
    ["no body", withBody("", HEAD).replace("res-body", "null-body")],
    ["shorter than its head says", withBody("3\r\nbye\r\n0\r\n\r\n", HEAD.replace("\r\n\r\n", "\r\nContent-Length: 11\r\n\r\n"))],
    ["of no length", withBody("3\r\nbye\r\n0\r\n\r\n", HEAD.replace("\r\n\r\n", "\r\nContent-Length: 3, 3\r\n\r\n"))],
    ["encoded", withBody("3\r\nbye\r\n0\r\n\r\n", HEAD.replace("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n"))],
    ["a part", withBody("3\r\nbye\r\n0\r\n\r\n", HEAD.replace("\r\n\r\n", "\r\nContent-Range: bytes 0-2/9\r\n\r\n"))],
    ["under another status", withBody("3\r\nbye\r\n0\r\n\r\n", HEAD.replace("200", "203"))],
    ["under another ICAP status", withBody("3\r\nbye\r\n0\r\n\r\n", HEAD).replace("200", "206")],
    ["in the request's section", withBody("3\r\nbye\r\n0\r\n\r\n", HEAD).replace("res-body", "req-body")],
    ["a block page", withBody("3\r\nbye\r\n0\r\n\r\n", HEAD, "X-Infection-Found: Type=0; Resolution=2; Threat=Eicar;\r\n")],
    ["refused", withBody("3\r\nbye\r\n0\r\n\r\n", HEAD.replace("200", "403"))],
  ])("that is %s replaces nothing, and is not clean", async (_, text) => {
    const { verdict, replacement } = await returning(text);
    expect(replacement).toBeUndefined();
    expect(verdict.outcome).not.toBe("clean");
  });

  it.each(["200", "201"])("replaces nothing when it began before all was sent (ICAP %s)", async (status) => {
    const answer = withBody("3\r\nbye\r\n0\r\n\r\n", HEAD).replace("200", status);
    const more = Promise.withResolvers<void>();
    const { verdict, replacement, body } = await returning(
      "",
      {
        async *body() {
          yield Buffer.from("hello ");
          await more.promise;
          yield Buffer.from("world");
        },
      },
      {
        script: {
          begin: ({ socket }) => {
            // Its head is only complete once all was sent.
            socket.write(answer.slice(0, 30));
            setTimeout(() => more.resolve(), 20);
          },
          complete: ({ socket }) => socket.write(answer.slice(30)),
        },
      },
    );
    expect(verdict.outcome).not.toBe("clean");
    expect({ replacement, body }).toEqual({ replacement: undefined, body: "" });
  });

  it("is not read faster than it is taken, and the time that takes is not the server's", async () => {
    const piece = `10000\r\n${"x".repeat(65_536)}\r\n`;
    let written = 0;
    await using it = await setUp(
      {
        complete: ({ socket }) => {
          socket.write(withBody("", HEAD));
          const write = (): void => {
            if (!socket.writable) return;
            written += 65_536;
            if (written >= 64 * 1024 * 1024) socket.write("0\r\n\r\n");
            else socket.write(piece, "latin1", write);
          };
          write();
        },
      },
      { timeouts: { answer: 100 }, limits: { answerBodyBytes: 100_000_000 } },
    );
    const go = Promise.withResolvers<void>();
    let taken = 0;
    let atOnce = 0;
    let most = 0;
    const scanning = scan(it.service, "hello world", {
      async returned(bytes) {
        atOnce += 1;
        most = Math.max(most, atOnce);
        await go.promise;
        taken += bytes.length;
        atOnce -= 1;
      },
    });
    await until(() => atOnce === 1);
    // Several times as long as the server would have.
    await delay(400);
    expect(written).toBeLessThan(32 * 1024 * 1024);
    go.resolve();
    expect((await scanning).replacement?.size).toBe(taken);
    expect(taken).toBe(64 * 1024 * 1024 - 65_536);
    expect(most).toBe(1);
  });

  it("that stalls after a piece was taken is given up", async () => {
    const failed = returning(withBody("6\r\nhello \r\n5\r\nth", HEAD), {}, { options: { timeouts: { answer: 100 } } });
    expect(await codeOf(failed)).toBe("timeout");
  });

  it("counts when the connection breaks while it is being taken", async () => {
    let breakOff: (() => void) | undefined;
    const { replacement, idle } = await returning(
      "",
      {
        returned: async () => {
          breakOff?.();
          await delay(50);
        },
      },
      {
        script: {
          complete: ({ socket }) => {
            breakOff = () => void socket.resetAndDestroy();
            socket.write(withBody("3\r\nbye\r\n0\r\n\r\n", HEAD));
          },
        },
      },
    );
    expect(replacement?.size).toBe(3);
    expect(idle).toBe(0);
  });

  it("does not count when the server closes in the middle", async () => {
    const failed = returning("", {}, { script: { complete: ({ socket }) => socket.end(withBody("6\r\nhello \r\n5\r\nth", HEAD)) } });
    expect(await codeOf(failed)).toBe("closed_early");
  });

  it("that nobody can take ends the scan with that very error", async () => {
    const error = new Error("the disk is full");
    await using it = await setUp({ complete: ({ socket }) => socket.write(withBody("3\r\nbye\r\n", HEAD)) });
    await expect(scan(it.service, "hello world", { returned: () => Promise.reject(error) })).rejects.toBe(error);
    await until(() => it.server.count.open === 0);
    expect(it.service.stats()).toMatchObject({ open: 0, idle: 0, busy: 0, waiting: 0 });
  });

  it("that is never taken does not hold an aborted scan", async () => {
    await using it = await setUp({ complete: ({ socket }) => socket.write(withBody("3\r\nbye\r\n", HEAD)) });
    const controller = new AbortController();
    const reason = new Error("enough");
    const returned = (): Promise<void> => {
      setImmediate(() => controller.abort(reason));
      return new Promise(() => undefined);
    };
    await expect(scan(it.service, "hello world", { returned, signal: controller.signal })).rejects.toBe(reason);
    await until(() => it.service.stats().open === 0);
  });

  it("without end is given up", async () => {
    const piece = `10000\r\n${"x".repeat(65_536)}\r\n`;
    const { verdict, replacement } = await returning(
      "",
      {},
      {
        script: {
          complete: ({ socket }) => {
            const write = (): void => {
              if (socket.writable) socket.write(piece, write);
            };
            socket.write(withBody("", HEAD), write);
          },
        },
      },
    );
    expect(verdict.outcome).toBe("modified");
    expect(replacement).toBeUndefined();
  });

  it("is none after a 204", async () => {
    expect(await returning(CLEAN)).toMatchObject({ verdict: { outcome: "clean" }, body: "", replacement: undefined });
  });
});

describe("the time of a whole scan", () => {
  it.each<[string, Script]>([
    ["a server that drips its body", { complete: ({ socket }) => drip(socket) }],
    ["a server that never answers", {}],
  ])("ends %s", async (_, script) => {
    await using it = await setUp(script, { timeouts: { total: 150 } });
    expect(await codeOf(scan(it.service, "hello"))).toBe("timeout");
    await until(() => it.server.count.open === 0);
  });

  it("ends a source that stalls", async () => {
    await using it = await setUp({}, { timeouts: { total: 150 } });
    expect(await codeOf(scan(it.service, "hello", { body: silence }))).toBe("timeout");
  });

  it("does not count the wait for a connection", async () => {
    const sockets: (() => void)[] = [];
    await using it = await setUp(
      { complete: ({ socket }) => void sockets.push(() => socket.write(CLEAN)) },
      { maxConnections: 1, timeouts: { total: 300 } },
    );
    const first = scan(it.service, "hello");
    const second = scan(it.service, "hello");
    await until(() => sockets.length === 1);
    await delay(200);
    sockets.shift()?.();
    await first;
    await until(() => sockets.length === 1);
    await delay(200);
    sockets.shift()?.();
    expect((await second).verdict.outcome).toBe("clean");
  });
});

function silence(): AsyncIterable<Uint8Array> {
  return { [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => undefined) }) };
}

function drip(socket: { write(text: string): unknown; once(event: "close", listener: () => void): unknown }): void {
  socket.write(withBody("", HEAD));
  const timer = setInterval(() => socket.write("1\r\nx\r\n"), 10);
  socket.once("close", () => clearInterval(timer));
}
