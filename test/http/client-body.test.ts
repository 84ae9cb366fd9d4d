import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { describe, expect, it, onTestFinished } from "vitest";
import { GatewayError } from "../../src/errors.ts";
import { MEDIA_PACE, type SenderLimits, bodyOf, lingerAfter } from "../../src/http/client-body.ts";

type Handler = (incoming: IncomingMessage, outgoing: ServerResponse) => Promise<void>;

/** A server that deals with one request so; and the client's end of a connection to it. */
async function exchange(handle: Handler): Promise<{ socket: Socket; received: () => string; done: Promise<void> }> {
  const { promise: done, resolve, reject } = Promise.withResolvers<void>();
  const answer = (incoming: IncomingMessage, outgoing: ServerResponse): void => void handle(incoming, outgoing).then(resolve, reject);
  const server = createServer({ requestTimeout: 0 }, answer).on("checkContinue", answer);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
  onTestFinished(() => {
    socket.destroy();
    server.closeAllConnections();
    server.close();
  });
  let text = "";
  socket.on("data", (bytes) => (text += bytes.toString("latin1"))).on("error", () => undefined);
  await once(socket, "connect");
  return { socket, received: () => text, done };
}

const HEAD = "POST / HTTP/1.1\r\nHost: x\r\n";
const pace = (more: Partial<SenderLimits> = {}): SenderLimits => ({ ...MEDIA_PACE, ...more });

/** What comes of reading the body: its size, or the code of what is thrown. */
async function readAll(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  limits: SenderLimits,
  signal?: AbortSignal,
): Promise<number | string> {
  let size = 0;
  try {
    for await (const chunk of bodyOf({ incoming, outgoing }, limits, signal)) size += chunk.length;
    return size;
  } catch (error) {
    return error instanceof GatewayError ? error.code : String(error);
  }
}

describe("a request's body", () => {
  it.each([
    ["with a length", "Content-Length: 5\r\n\r\nhello", 5],
    ["in chunks", "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", 5],
    ["empty", "Content-Length: 0\r\n\r\n", 0],
    ["none", "\r\n", 0],
  ])("is all that comes: %s", async (_what, text, size) => {
    let result: number | string | undefined;
    const { socket, done } = await exchange(async (incoming, outgoing) => {
      result = await readAll(incoming, outgoing, pace());
      outgoing.end();
    });
    socket.write(HEAD + text);
    await done;
    expect(result).toBe(size);
  });

  it("is told to go on once it is read, and only then", async () => {
    const [came, read] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const { socket, received, done } = await exchange(async (incoming, outgoing) => {
      came.resolve();
      await read.promise;
      outgoing.end(String(await readAll(incoming, outgoing, pace())));
    });
    socket.write(`${HEAD}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n`);
    await came.promise;
    expect(received()).toBe("");
    read.resolve();
    await expect.poll(received).toBe("HTTP/1.1 100 Continue\r\n\r\n");
    socket.write("hello");
    await done;
    await expect.poll(received).toMatch(/200 OK[^]*5/);
  });

  it("that stands still is given up, and the connection is there for the answer", async () => {
    const { socket, received, done } = await exchange(async (incoming, outgoing) => {
      outgoing.end(String(await readAll(incoming, outgoing, pace({ idle: 20 }))));
    });
    socket.write(`${HEAD}Content-Length: 5\r\n\r\nhe`);
    await done;
    await expect.poll(received).toContain("upload_too_slow");
  });

  it("that comes a byte now and then is given up when patience is over", async () => {
    const { socket, received, done } = await exchange(async (incoming, outgoing) => {
      outgoing.end(String(await readAll(incoming, outgoing, pace({ patience: 60, rate: 1e6 }))));
    });
    socket.write(`${HEAD}Content-Length: 100000\r\n\r\n`);
    const drip = setInterval(() => socket.write("x"), 5);
    await done;
    clearInterval(drip);
    await expect.poll(received).toContain("upload_too_slow");
  });

  it("in many pieces leaves nothing behind for each", async () => {
    let listeners = Infinity;
    const { socket, received, done } = await exchange(async (incoming, outgoing) => {
      const body = bodyOf({ incoming, outgoing }, pace());
      for (let pieces = 0; pieces < 20; pieces += 1) {
        socket.write("x");
        await body.next();
      }
      listeners = incoming.listenerCount("error") + incoming.listenerCount("close") + incoming.listenerCount("readable");
      outgoing.end("done");
    });
    socket.write(`${HEAD}Content-Length: 100\r\n\r\n`);
    await done;
    await expect.poll(received).toContain("done");
    expect(listeners).toBeLessThan(5);
  });

  it("that is cut off, or that nobody wants any more, ends with the reason", async () => {
    let result: number | string | undefined;
    const cut = await exchange(async (incoming, outgoing) => {
      result = await readAll(incoming, outgoing, pace());
    });
    cut.socket.write(`${HEAD}Content-Length: 5\r\n\r\nhe`);
    cut.socket.end();
    await cut.done;
    expect(result).toBe("client_gone");

    const controller = new AbortController();
    const unwanted = await exchange(async (incoming, outgoing) => {
      const reading = readAll(incoming, outgoing, pace(), controller.signal);
      controller.abort(new GatewayError("shutting_down"));
      outgoing.end(String(await reading));
    });
    unwanted.socket.write(`${HEAD}Content-Length: 5\r\n\r\nhe`);
    await unwanted.done;
    await expect.poll(unwanted.received).toContain("shutting_down");
  });
});

describe("an answer that comes before the body has", () => {
  it("reaches a client that goes on sending", async () => {
    const { socket, received, done } = await exchange(async (incoming, outgoing) => {
      lingerAfter({ incoming, outgoing });
      outgoing.writeHead(413).end("too large");
    });
    const size = 30_000_000;
    socket.write(`${HEAD}Content-Length: ${size}\r\n\r\n`);
    await done;
    const piece = Buffer.alloc(1_000_000);
    for (let sent = 0; sent < size; sent += piece.length) if (!socket.write(piece)) await once(socket, "drain");
    await expect.poll(received).toContain("too large");
    // The next request on the connection is read as one.
    expect(socket.destroyed).toBe(false);
  });

  it.each([
    ["came whole", 60_000],
    ["did not", 600_000],
  ])("and half of a body that %s leave the connection to the next request", async (_what, size) => {
    const { socket, received } = await exchange(async (incoming, outgoing) => {
      lingerAfter({ incoming, outgoing });
      await bodyOf({ incoming, outgoing }, pace()).next();
      outgoing.end("answered");
    });
    const request = `${HEAD}Content-Length: ${size}\r\n\r\n${"x".repeat(size)}`;
    socket.write(request);
    await expect.poll(() => received().split("answered").length - 1).toBe(1);
    socket.write(request);
    await expect.poll(() => received().split("answered").length - 1).toBe(2);
  });
});
