import { getEventListeners, once } from "node:events";
import { type AddressInfo, type LookupFunction, type Server, type Socket, createServer } from "node:net";
import { describe, expect, it } from "vitest";
import type { Connection } from "../../../icap/client/connection.ts";
import { dial } from "../../../icap/client/dial.ts";
import { ConnectionPool, type PoolRules } from "../../../icap/client/pool.ts";
import { parseTarget } from "../../../icap/client/target.ts";
import { certificates } from "../support/certificates.ts";
import { codeOf, until } from "../support/scan.ts";
import { tlsServer } from "../support/tls-server.ts";

/** A resolver that knows one answer after the other, and the last one for good. */
function resolver(...answers: (readonly string[])[]) {
  const asked: string[] = [];
  const lookup: LookupFunction = (host, { all }, done) => {
    expect(all).toBe(true);
    const addresses = answers[Math.min(asked.length, answers.length - 1)] ?? [];
    asked.push(host);
    setImmediate(() =>
      done(
        null,
        addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 })),
      ),
    );
  };
  return { asked, lookup };
}

function pool(url: string, rules: Partial<PoolRules>): ConnectionPool & AsyncDisposable {
  const made = new ConnectionPool(parseTarget(url), {
    maxConnections: 4,
    reservedConnections: 0,
    connectTimeout: 5_000,
    idleTimeout: 60_000,
    maxWaiting: 0,
    tls: undefined,
    ...rules,
  });
  return Object.assign(made, { [Symbol.asyncDispose]: () => made.close() });
}

async function open(from: ConnectionPool, signal = new AbortController().signal): Promise<Connection> {
  const lease = await from.lease(false, signal);
  try {
    return await lease.connection({ fresh: true, signal });
  } finally {
    lease.release();
  }
}

async function listen(port = 0, host = "127.0.0.1") {
  const sockets: Socket[] = [];
  const server: Server = createServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => socket.destroy());
    socket.resume();
  });
  server.listen(port, host);
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    sockets,
    open: () => sockets.filter((socket) => !socket.closed).length,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => {
        server.close(resolve);
      });
    },
  };
}

describe("a name", () => {
  it("is resolved anew for each connection", async () => {
    await using first = await listen();
    await using second = await listen(first.port, "127.0.0.2");
    const { asked, lookup } = resolver(["127.0.0.1"], ["127.0.0.2"]);
    await using connections = pool(`icap://av.example:${first.port}`, { lookup });
    await open(connections);
    await until(() => first.open() === 1);
    await open(connections);
    await until(() => second.open() === 1);
    expect({ asked, first: first.sockets.length }).toEqual({ asked: ["av.example", "av.example"], first: 1 });
  });

  it("has all of its addresses tried", async () => {
    await using server = await listen();
    const { lookup } = resolver(["::1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6", "127.0.0.1"]);
    await using connections = pool(`icap://av.example:${server.port}`, { lookup });
    expect((await open(connections)).usable).toBe(true);
    await until(() => server.open() === 1);
  });

  it("has all of its addresses tried by TLS as well", async () => {
    await using server = await tlsServer();
    const { lookup } = resolver(["::1", "127.0.0.2", "127.0.0.3", "127.0.0.1"]);
    await using connections = pool(`icaps://localhost:${server.port}`, { lookup, tls: { ca: certificates.ca } });
    await open(connections);
    await until(() => server.greetings.length === 1);
    expect(server.greetings[0]?.name).toBe("localhost");
  });

  it("loses no more than its share of the time to an address that never speaks TLS, or is somebody else's", async () => {
    await using server = await tlsServer();
    await using silent = await listen(server.port, "127.0.0.2");
    await using stranger = await tlsServer({ ...certificates.expired }, { host: "127.0.0.3", port: server.port });
    const { lookup } = resolver(["127.0.0.2", "127.0.0.3", "127.0.0.1"]);
    await using connections = pool(`icaps://localhost:${server.port}`, { lookup, tls: { ca: certificates.ca }, connectTimeout: 1_500 });
    await open(connections);
    await until(() => server.greetings.length === 1 && silent.open() === 0 && stranger.count.open === 0);
    expect(silent.sockets.length).toBe(1);
    expect(stranger.requests).toEqual([]);
  });

  it("of which no address takes the connection is named with what the system says of each", async () => {
    const { port } = await (async () => {
      await using server = await listen();
      return server;
    })();
    const { lookup } = resolver(["127.0.0.2", "127.0.0.1"]);
    await using connections = pool(`icap://av.example:${port}`, { lookup });
    await expect(open(connections)).rejects.toMatchObject({
      code: "connect_failed",
      message: `cannot connect to av.example:${port}: ECONNREFUSED`,
      cause: { errors: [{ address: "127.0.0.2" }, { address: "127.0.0.1" }] },
    });
    expect(connections.stats).toMatchObject({ open: 0, idle: 0, busy: 0, waiting: 0 });
  });

  it.each([
    ["does not exist", "ENOTFOUND"],
    ["can't be resolved now", "EAI_AGAIN"],
  ])("that %s is %s", async (_, code) => {
    const lookup: LookupFunction = (__, ___, done) => done(Object.assign(new Error("getaddrinfo"), { code }), []);
    await using connections = pool("icap://av.example", { lookup });
    await expect(open(connections)).rejects.toMatchObject({
      code: "connect_failed",
      message: `cannot connect to av.example:1344: ${code}`,
      cause: { code },
    });
  });

  it("without addresses is not found", async () => {
    await using connections = pool("icap://av.example", resolver([]));
    await expect(open(connections)).rejects.toMatchObject({ code: "connect_failed", message: expect.stringContaining("ENOTFOUND") });
  });

  it("that is an address is not resolved", async () => {
    await using server = await listen();
    const { asked, lookup } = resolver(["127.0.0.2"]);
    await using connections = pool(`icap://127.0.0.1:${server.port}`, { lookup });
    await open(connections);
    expect(asked).toEqual([]);
  });
});

const never: LookupFunction = () => undefined;

describe("connecting ends", () => {
  it("when its time is over while the name is being resolved", async () => {
    await using connections = pool("icap://av.example", { lookup: never, connectTimeout: 20 });
    expect(await codeOf(open(connections))).toBe("timeout");
  });

  it("when its time is over in the middle of a TLS handshake", async () => {
    await using server = await listen();
    await using connections = pool(`icaps://127.0.0.1:${server.port}`, { connectTimeout: 50 });
    expect(await codeOf(open(connections))).toBe("timeout");
    await until(() => server.sockets.length === 1 && server.open() === 0);
    expect(connections.stats.open).toBe(0);
  });

  it("when the caller gives up", async () => {
    await using server = await listen();
    for (const [url, lookup] of [
      [`icaps://127.0.0.1:${server.port}`, undefined],
      ["icap://av.example", never],
    ] as const) {
      await using connections = pool(url, lookup === undefined ? {} : { lookup });
      const controller = new AbortController();
      const connecting = codeOf(open(connections, controller.signal));
      await until(() => lookup !== undefined || server.open() === 1);
      controller.abort(new Error("enough"));
      expect(await connecting).toMatchObject({ message: "enough" });
      await until(() => server.open() === 0);
    }
  });

  it("when the pool is closed", async () => {
    await using server = await listen();
    const connections = pool(`icaps://127.0.0.1:${server.port}`, {});
    const connecting = codeOf(open(connections));
    await until(() => server.open() === 1);
    await connections.close();
    expect(await connecting).toBe("closed");
    await until(() => server.open() === 0);
  });

  it("and leaves nothing on the caller's signal", async () => {
    await using server = await listen();
    const { signal } = new AbortController();
    const rules = { timeout: 5_000, identity: undefined };
    const socket = await dial(parseTarget(`icap://127.0.0.1:${server.port}`), rules, signal);
    socket.destroy();
    expect(getEventListeners(signal, "abort")).toEqual([]);
    const failing = dial(parseTarget("icap://av.example"), { ...rules, lookup: resolver([]).lookup }, signal);
    expect(getEventListeners(signal, "abort")).not.toEqual([]);
    expect(await codeOf(failing)).toBe("connect_failed");
    expect(getEventListeners(signal, "abort")).toEqual([]);
  });
});
