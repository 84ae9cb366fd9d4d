import { buffer } from "node:stream/consumers";
import { Agent, type Dispatcher } from "undici";
import { describe, expect, it } from "vitest";
import { Exchange } from "../../src/media/exchange.ts";

const OPTIONS = { origin: "http://127.0.0.1", path: "/", method: "GET" } as const;
const PIECE = Buffer.alloc(64 * 1024, 1);
const CUT_SHORT = { code: "homeserver_failed", status: 502 };

/** What undici knows of one exchange, moved by hand. */
class Connection extends Agent implements Dispatcher.DispatchController {
  readonly aborted = false;
  readonly reason = null;
  paused = false;
  reasons: Error[] = [];
  handler: Dispatcher.DispatchHandler = {};

  override dispatch(_options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    this.handler = handler;
    return true;
  }

  start(): void {
    this.handler.onRequestStart?.(this, null);
  }

  answer(statusCode = 200): void {
    this.start();
    this.handler.onResponseStart?.(this, statusCode, {});
  }

  send(chunk: Buffer): void {
    this.handler.onResponseData?.(this, chunk);
  }

  end(): void {
    this.handler.onResponseEnd?.(this, {});
  }

  fail(error: Error): void {
    this.handler.onResponseError?.(this, error);
  }

  abort(reason: Error): void {
    this.reasons.push(reason);
    this.fail(reason);
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }
}

async function answered(signal = new AbortController().signal): Promise<{ connection: Connection; exchange: Exchange }> {
  const connection = new Connection();
  const exchange = new Exchange(signal);
  const head = exchange.begin(connection, OPTIONS);
  connection.answer();
  expect(await head).toEqual({ statusCode: 200, headers: {} });
  return { connection, exchange };
}

describe("Exchange", () => {
  it("hands on what comes before and after it is asked for", async () => {
    const { connection, exchange } = await answered();
    connection.send(Buffer.from("a "));
    const read = buffer(exchange);
    await Promise.resolve();
    connection.send(Buffer.from("cat"));
    connection.end();
    expect((await read).toString()).toBe("a cat");
    expect(await exchange.next()).toEqual({ done: true, value: undefined });
  });

  it("waits for the answer behind provisional ones", async () => {
    const connection = new Connection();
    const head = new Exchange(new AbortController().signal).begin(connection, OPTIONS);
    connection.answer(103);
    connection.answer(200);
    expect(await head).toMatchObject({ statusCode: 200 });
  });

  it("stops the connection while its reader is behind, and lets it go on when there is room", async () => {
    const { connection, exchange } = await answered();
    let sent = 0;
    for (; !connection.paused && sent < 100; sent++) connection.send(PIECE);
    expect(sent).toBe(2);
    await exchange.next();
    expect(connection.paused).toBe(false);
    connection.send(PIECE);
    expect(connection.paused).toBe(true);
  });

  it("does not stop it for a reader that waits", async () => {
    const { connection, exchange } = await answered();
    for (let piece = 0; piece < 10; piece++) {
      const read = exchange.next();
      connection.send(PIECE);
      expect((await read).value).toBe(PIECE);
    }
    expect(connection.paused).toBe(false);
  });

  it("holds little of what comes byte by byte, whatever else was read with it, and hands it on together", async () => {
    const { connection, exchange } = await answered();
    const read = Buffer.alloc(64 * 1024, "x");
    let sent = 0;
    for (; !connection.paused && sent < 10_000; sent++) connection.send(read.subarray(sent, sent + 1));
    expect(sent).toBeLessThan(1_000);
    const { value } = await exchange.next();
    expect(value?.toString()).toBe("x".repeat(sent));
    expect(value?.buffer).not.toBe(read.buffer);
    expect(connection.paused).toBe(false);
  });

  it("keeps small and large pieces in their order", async () => {
    const { connection, exchange } = await answered();
    for (const piece of ["a", "b", PIECE, "c", PIECE, "d", "e"]) connection.send(Buffer.from(piece));
    connection.end();
    const ordered = await buffer(exchange);
    expect(ordered.equals(Buffer.concat(["ab", PIECE, "c", PIECE, "de"].map((piece) => Buffer.from(piece))))).toBe(true);
  });

  it("does not have the connection stop again for each small piece that is read", async () => {
    const { connection, exchange } = await answered();
    const piece = Buffer.alloc(8 * 1024);
    while (!connection.paused) connection.send(piece);
    await exchange.next();
    expect(connection.paused).toBe(true);
    for (let left = 0; left < 8; left++) await exchange.next();
    expect(connection.paused).toBe(false);
  });

  it("fails a reader that waits, and drops what nobody has read", async () => {
    const waiting = await answered();
    const read = waiting.exchange.next();
    waiting.connection.fail(new Error("gone"));
    await expect(read).rejects.toMatchObject(CUT_SHORT);

    const { connection, exchange } = await answered();
    connection.send(PIECE);
    connection.fail(new Error("gone"));
    await expect(exchange.next()).rejects.toMatchObject(CUT_SHORT);
    await expect(exchange.next()).rejects.toMatchObject(CUT_SHORT);
  });

  it("rejects before the head with what it was told, whether thrown or not", async () => {
    const error = new Error("refused");
    const connection = new Connection();
    const head = new Exchange(new AbortController().signal).begin(connection, OPTIONS);
    connection.fail(error);
    await expect(head).rejects.toBe(error);

    const thrown = new Connection();
    thrown.dispatch = () => {
      throw error;
    };
    await expect(new Exchange(new AbortController().signal).begin(thrown, OPTIONS)).rejects.toBe(error);
  });

  it("is ended by the signal, before it starts and while it comes, and no more after its end", async () => {
    const reason = new Error("the client left");
    const early = new AbortController();
    const connection = new Connection();
    const head = new Exchange(early.signal).begin(connection, OPTIONS);
    early.abort(reason);
    connection.start();
    await expect(head).rejects.toBe(reason);

    const late = new AbortController();
    const coming = await answered(late.signal);
    const whole = await answered(late.signal);
    whole.connection.send(PIECE);
    whole.connection.end();
    late.abort(reason);
    await expect(coming.exchange.next()).rejects.toBe(reason);
    expect(await buffer(whole.exchange)).toEqual(PIECE);
    expect(whole.connection.reasons).toEqual([]);
  });

  it("that is destroyed never looks whole", async () => {
    const given = new Error("not wanted");
    const coming = await answered();
    const read = coming.exchange.next();
    coming.exchange.destroy(given);
    await expect(read).rejects.toBe(given);
    expect(coming.connection.reasons).toEqual([given]);

    const whole = await answered();
    whole.connection.send(PIECE);
    whole.connection.end();
    whole.exchange.destroy();
    await expect(whole.exchange.next()).rejects.toMatchObject(CUT_SHORT);
  });

  it("is destroyed by a reader that leaves, and not by one that is through", async () => {
    const left = await answered();
    left.connection.send(PIECE);
    for await (const _piece of left.exchange) break;
    expect(left.connection.reasons).toHaveLength(1);

    const through = await answered();
    through.connection.end();
    for await (const _piece of through.exchange);
    through.exchange.destroy();
    expect(through.connection.reasons).toEqual([]);
    expect(await through.exchange.next()).toEqual({ done: true, value: undefined });
  });
});
