import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { IcapService, type IcapServiceOptions } from "../../../icap/index.ts";
import { recorded } from "../support/answers.ts";
import { codeOf, scan, until } from "../support/scan.ts";
import { CLEAN, ECHO_HEAD, OPTIONS, type Peer, type Script, scriptedServer, withBody } from "../support/scripted-server.ts";

const QUICK = { connect: 300, write: 300, answer: 150, idle: 5_000 };

async function against(script: Script, content = "hello", options: Partial<IcapServiceOptions> = {}) {
  await using server = await scriptedServer(script);
  await using service = new IcapService({ url: server.url, timeouts: QUICK, ...options });
  const result = await codeOf(scan(service, content));
  await until(() => service.stats().busy === 0);
  return { result, idle: service.stats().idle, connections: server.count.connections };
}

const says =
  (text: string | Buffer) =>
  ({ socket }: Peer): void => {
    socket.write(text);
  };
/** Writes `start`, then `more` again and again. */
const repeats =
  (start: string, more: string) =>
  ({ socket }: Peer): void => {
    const write = (): void => {
      if (socket.writable) socket.write(more, write);
    };
    socket.write(start, write);
  };
/** Writes a head that has no end, a byte at a time. */
function drips({ socket }: Peer): void {
  drip(socket, `ICAP/1.0 204 OK\r\n${"A: b\r\n".repeat(1000)}`);
}
/** Writes `text` a byte at a time, over and over. */
function drip(socket: Peer["socket"], text: string): void {
  let at = 0;
  const timer = setInterval(() => socket.write(text.charAt(at++ % text.length)), 10);
  socket.once("close", () => clearInterval(timer));
}
const outcome = (name: string): unknown => ({ resolved: expect.objectContaining({ verdict: expect.objectContaining({ outcome: name }) }) });

describe("a server that lies", () => {
  it.each<[string, string, unknown]>([
    ["an echo cut short, with a last chunk", withBody("4\r\nhell\r\n0\r\n\r\n"), outcome("modified")],
    ["an echo with other bytes", withBody("5\r\nhellO\r\n0\r\n\r\n"), outcome("modified")],
    ["an echo that goes on", withBody("6\r\nhello!\r\n0\r\n\r\n"), outcome("modified")],
    ["an echo with another status", withBody("5\r\nhello\r\n0\r\n\r\n", "HTTP/1.1 201 OK\r\n\r\n"), outcome("modified")],
    ["an echo with a threat in its trailer", withBody("5\r\nhello\r\n0\r\nX-Virus-ID: Late\r\n\r\n"), outcome("infected")],
    ["a 200 with nothing in it", "ICAP/1.0 200 OK\r\n\r\n", outcome("error")],
    ["a 200 with a head and no body", withBody("").replace("res-body", "null-body"), outcome("modified")],
    ["a 200 with another kind of body", withBody("5\r\nhello\r\n0\r\n\r\n").replace("res-body", "opt-body"), outcome("modified")],
    ["a 204 with a message in it", withBody("5\r\nhello\r\n0\r\n\r\n").replace("200 OK", "204 OK"), outcome("error")],
    ["a 404", "ICAP/1.0 404 Not found\r\nConnection: close\r\n\r\n", outcome("error")],
    ["a 206", withBody("5\r\nhello\r\n0\r\n\r\n").replace("200 OK", "206 OK"), outcome("modified")],
    ["a wrong offset", withBody("5\r\nhello\r\n0\r\n\r\n").replace(`=${ECHO_HEAD.length}`, `=${ECHO_HEAD.length - 1}`), "protocol"],
    ["an endless offset", withBody("").replace(`=${ECHO_HEAD.length}`, "=999999999"), "limit"],
    ["a wrong chunk size", withBody("3\r\nhello\r\n0\r\n\r\n"), "protocol"],
    ["100 Continue that nobody asked for", "ICAP/1.0 100 Continue\r\n\r\n", "protocol"],
    ["100 Continue, then a 204", `ICAP/1.0 100 Continue\r\n\r\n${CLEAN}`, "protocol"],
    ["another 1xx", "ICAP/1.0 102 Processing\r\n\r\n", "protocol"],
    ["HTTP", "HTTP/1.1 204 No Content\r\n\r\n", "protocol"],
    ["bytes behind a 204", `${CLEAN}X`, "protocol"],
    ["a second answer behind a 204", CLEAN + CLEAN, "protocol"],
  ])("%s", async (_, answer, expected) => {
    const { result, idle } = await against({ complete: says(answer) });
    expect(result).toEqual(expected);
    if (expected === "protocol" || expected === "limit") expect(idle).toBe(0);
  });

  it("an ISTag of any length", async () => {
    expect((await against({ complete: says(`ICAP/1.0 204 OK\r\nISTag: ${"x".repeat(300)}\r\n\r\n`) })).result).toBe("limit");
  });

  it("a 204 before the last chunk was sent is not clean, and the connection is not used again", async () => {
    const { result, idle } = await against({ begin: says(CLEAN) }, "x".repeat(20_000_000));
    expect(result).toEqual(outcome("error"));
    expect(idle).toBe(0);
  });

  it.each<[string, (peer: Peer) => void]>([
    ["closes", ({ socket }) => void socket.end(CLEAN)],
    ["breaks off", ({ socket }) => void socket.write(CLEAN, () => socket.resetAndDestroy())],
    ["closes once it is sure that more is on its way", ({ socket }) => void setTimeout(() => socket.end(CLEAN), 20)],
  ])("a 204 before the last chunk was sent is not clean when the server %s behind it", async (_, begin) => {
    const { result } = await against({ begin }, "x".repeat(20_000_000));
    expect(result).not.toMatchObject({ resolved: { verdict: { outcome: "clean" } } });
  });

  it("an early block page is a verdict without the rest being sent", async () => {
    const { result, idle } = await against({ begin: says(recorded("infected")) }, "x".repeat(20_000_000));
    expect(result).toEqual(outcome("infected"));
    expect(idle).toBe(0);
  });

  it("an early echo is not clean, whatever it echoes", async () => {
    await using server = await scriptedServer({ begin: says(withBody("5\r\nhello\r\n0\r\n\r\n")) });
    await using service = new IcapService({ url: server.url });
    const more = Promise.withResolvers<void>();
    const scanning = scan(service, "hello", {
      async *body() {
        yield Buffer.from("hel");
        await more.promise;
        yield Buffer.from("lo");
      },
    });
    expect((await scanning).verdict.outcome).toBe("error");
    more.resolve();
  });

  it("a body that never ends is given up, and is no echo", async () => {
    const { result, idle } = await against({ complete: repeats(withBody(""), `10000\r\n${"x".repeat(65_536)}\r\n`) });
    expect(result).toEqual(outcome("modified"));
    expect(idle).toBe(0);
  });

  it("a head that never ends is given up", async () => {
    expect((await against({ complete: repeats("ICAP/1.0 204 OK\r\n", "A: b\r\n".repeat(1000)) })).result).toBe("limit");
  });
});

describe("a server that stalls", () => {
  const full = withBody("5\r\nhello\r\n0\r\n\r\n");
  it.each<[string, string]>([
    ["before its answer", ""],
    ["in the status line", full.slice(0, 5)],
    ["in the ICAP head", full.slice(0, 40)],
    ["in the encapsulated head", full.slice(0, full.indexOf("HTTP") + 10)],
    ["in a chunk size", full.slice(0, full.indexOf("5\r\nhello") + 1)],
    ["in a chunk", full.slice(0, full.indexOf("hello") + 2)],
    ["before the last chunk", full.slice(0, -5)],
    ["before the last line end", full.slice(0, -1)],
  ])("%s", async (_, part) => {
    expect(await against({ complete: says(part) })).toMatchObject({ result: "timeout", idle: 0 });
  });

  it("by one byte at a time of its head", async () => {
    expect((await against({ complete: drips })).result).toBe("timeout");
  });

  it("by not reading", async () => {
    expect((await against({ begin: ({ socket }) => void socket.pause() }, "x".repeat(50_000_000))).result).toBe("timeout");
  });

  it("at OPTIONS", async () => {
    expect((await against({ options: null })).result).toBe("timeout");
  });

  it("at OPTIONS, by one byte at a time of its body", async () => {
    const head = `${OPTIONS.replace("null-body=0", "opt-body=0").slice(0, -2)}\r\n`;
    await using server = await scriptedServer({ options: head, optionsHead: (_, socket) => drip(socket, "1\r\nx\r\n") });
    await using service = new IcapService({ url: server.url, timeouts: QUICK });
    expect(await codeOf(scan(service, "hello"))).toBe("timeout");
    await until(() => server.count.open === 0);
  });

  it("every end of a connection is an error", async () => {
    for (let at = 0; at < full.length; at += 7) {
      const { result } = await against({ complete: ({ socket }) => socket.end(full.slice(0, at)) });
      // The connection was used for OPTIONS before: with not one byte of an answer, it is tried once more, on another.
      expect(result, `after ${at} bytes`).toBe("closed_early");
    }
    const reset = await against({ complete: ({ socket }) => socket.resetAndDestroy() });
    expect(reset).toMatchObject({ result: "closed_early", connections: 2 });
  });
});

describe("a server that talks nonsense", () => {
  const never = expect.not.objectContaining({
    resolved: expect.objectContaining({ verdict: expect.objectContaining({ outcome: "clean" }) }),
  }) as unknown;

  it("is never clean, and never waited for without end", async () => {
    let garbage: Uint8Array = Buffer.alloc(0);
    await using server = await scriptedServer({ complete: ({ socket }) => socket.end(garbage) });
    await using service = new IcapService({ url: server.url, timeouts: QUICK });
    const line = fc.constantFrom(
      "ICAP/1.0 200 OK\r\n",
      "ICAP/1.0 204 OK\r\nX-Infection-Found: x\r\n",
      "HTTP/1.1 200 OK\r\n",
      "Encapsulated: res-hdr=0, res-body=19\r\n",
      "Encapsulated: null-body=0\r\n",
      "\r\n",
      "5\r\n",
      "hell0",
      "0\r\n\r\n",
      ": x\r\n",
    );
    const nonsense = fc.oneof(
      fc.uint8Array({ maxLength: 300 }),
      fc.array(line, { maxLength: 12 }).map((lines) => new Uint8Array(Buffer.from(lines.join("")))),
    );
    await fc.assert(
      fc.asyncProperty(nonsense, async (bytes) => {
        garbage = bytes;
        expect(await codeOf(scan(service, "hello"))).toEqual(never);
      }),
      { numRuns: 150 },
    );
    expect(service.stats().busy).toBe(0);
  });

  it("is never clean when one byte of an infected answer is another", async () => {
    let answer: Uint8Array = Buffer.alloc(0);
    await using server = await scriptedServer({ complete: ({ socket }) => socket.end(answer) });
    await using service = new IcapService({ url: server.url, timeouts: QUICK });
    const infected = recorded("infected");
    await fc.assert(
      fc.asyncProperty(fc.nat(infected.length - 1), fc.nat(255), async (at, byte) => {
        const changed = Buffer.from(infected);
        changed[at] = byte;
        answer = changed;
        expect(await codeOf(scan(service, "hello"))).toEqual(never);
      }),
      { numRuns: 150 },
    );
  });
});
