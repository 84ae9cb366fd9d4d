import { once } from "node:events";
import { type ServerResponse, createServer } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { describe, expect, it, onTestFinished } from "vitest";
import { type Delivery, sendMedia } from "../../src/http/send-media.ts";

const PIECE = Buffer.alloc(1 << 20);

/** Media, without an end unless a size is given, sent to whoever connects. */
async function serve(
  body: (outgoing: ServerResponse) => AsyncIterable<Buffer>,
  idle: number,
  patience = 60_000,
  size = Number.MAX_SAFE_INTEGER,
): Promise<{ port: number; delivery: Promise<Delivery> }> {
  const { promise: delivery, resolve } = Promise.withResolvers<Delivery>();
  const server = createServer((_, outgoing) =>
    resolve(sendMedia(outgoing, {}, { body: body(outgoing), size }, { idle, patience, rate: Infinity })),
  );
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { port: (server.address() as AddressInfo).port, delivery };
}

async function ask(port: number): Promise<ReturnType<typeof connect>> {
  const socket = connect(port, "127.0.0.1");
  onTestFinished(() => void socket.destroy());
  await once(socket, "connect");
  socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  return socket;
}

async function* pieces(): AsyncGenerator<Buffer> {
  for (;;) yield PIECE;
}

async function* texts(...pieces: readonly string[]): AsyncGenerator<Buffer> {
  for (const piece of pieces) yield Buffer.from(piece);
}

async function* failing(): AsyncGenerator<Buffer> {
  yield Buffer.from("media");
  await Promise.resolve();
  throw new Error("what went wrong");
}

describe("media on its way", () => {
  it("a reader that takes nothing more is dropped, and the media let go", async () => {
    let letGo = false;
    async function* endless(): AsyncGenerator<Buffer> {
      try {
        for (;;) yield PIECE;
      } finally {
        letGo = true;
      }
    }
    const { port, delivery } = await serve(endless, 300);
    const socket = await ask(port);
    socket.pause();
    const { complete, sent } = await delivery;
    expect({ complete, letGo }).toEqual({ complete: false, letGo: true });
    expect(sent).toBeGreaterThan(0);
  });

  it("a reader that takes a little now and then is dropped in the end", async () => {
    const { port, delivery } = await serve(pieces, 60_000, 300);
    const socket = await ask(port);
    const sips = setInterval(() => socket.read(1), 10);
    onTestFinished(() => clearInterval(sips));
    socket.pause();
    expect(await delivery).toMatchObject({ complete: false });
  });

  it("the first bytes of what is large do not wait for those that come in the same turn", async () => {
    const first = Buffer.from("the first bytes");
    const rest = Buffer.alloc(2 * PIECE.length);
    let wasWritten: boolean | undefined;
    async function* body({ socket }: ServerResponse): AsyncGenerator<Buffer> {
      yield first;
      wasWritten = socket?.writableCorked === 0 && socket.writableLength === 0;
      yield rest;
    }
    const { port, delivery } = await serve(body, 60_000, 60_000, first.length + rest.length);
    (await ask(port)).resume();
    expect(await delivery).toMatchObject({ complete: true });
    expect(wasWritten).toBe(true);
  });

  it("what is small is written as a whole", async () => {
    let wasWritten: boolean | undefined;
    async function* body({ socket }: ServerResponse): AsyncGenerator<Buffer> {
      yield Buffer.from("all ");
      wasWritten = socket?.writableCorked === 0;
      yield Buffer.from("of it");
    }
    const { port, delivery } = await serve(body, 60_000, 60_000, 9);
    (await ask(port)).resume();
    expect(await delivery).toMatchObject({ complete: true });
    expect(wasWritten).toBe(false);
  });

  it("a client that has gone before the first byte is no reason to wait", async () => {
    const { promise: delivery, resolve } = Promise.withResolvers<Delivery>();
    const server = createServer((_, outgoing) => {
      outgoing.once("close", () => resolve(sendMedia(outgoing, {}, { body: failing(), size: 0 })));
    });
    onTestFinished(() => void server.close());
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const socket = await ask((server.address() as AddressInfo).port);
    socket.destroy();
    expect(await delivery).toEqual({ sent: 0, complete: false });
  });

  it("media that fails cuts the connection: nothing of the error is sent", async () => {
    const { port, delivery } = await serve(failing, 60_000);
    const socket = await ask(port);
    let received = "";
    socket.on("data", (chunk) => (received += chunk.toString("latin1")));
    socket.on("error", () => undefined);
    await once(socket, "close");
    expect(received).not.toContain("what went wrong");
    // The last chunk of a complete body.
    expect(received).not.toContain("\r\n0\r\n");
    expect(await delivery).toMatchObject({ complete: false, error: new Error("what went wrong") });
  });

  it.each([
    ["longer", 4],
    ["shorter", 6],
  ])("media that is %s than was announced cuts the connection", async (_how, size) => {
    const { port, delivery } = await serve(() => texts("med", "ia"), 60_000, 60_000, size);
    const socket = await ask(port);
    let received = "";
    socket.on("data", (chunk) => (received += chunk.toString("latin1"))).on("error", () => undefined);
    await once(socket, "close");
    expect(received).not.toContain("\r\n0\r\n");
    expect(await delivery).toMatchObject({ complete: false, error: expect.any(RangeError) });
  });

  it("a socket that stood still while nothing came to be sent is no fault of the reader's", async () => {
    async function* slow(outgoing: ServerResponse): AsyncGenerator<Buffer> {
      yield PIECE;
      // As Node does after the time that the first piece set.
      outgoing.socket?.emit("timeout");
      yield PIECE;
    }
    const { port, delivery } = await serve(slow, 60_000, 60_000, 2 * PIECE.length);
    (await ask(port)).resume();
    expect(await delivery).toEqual({ sent: 2 * PIECE.length, complete: true });
  });

  it("empty pieces around the last bytes do no harm", async () => {
    const { port, delivery } = await serve(() => texts("", "media", "", ""), 60_000, 60_000, 5);
    (await ask(port)).resume();
    expect(await delivery).toEqual({ sent: 5, complete: true });
  });
});
