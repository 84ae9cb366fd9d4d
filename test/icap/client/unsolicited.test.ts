import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import type { IcapServiceOptions } from "../../../icap/index.ts";
import { codeOf, scan, until } from "../support/scan.ts";
import { CLEAN, OPTIONS, type Peer, type Script, withBody } from "../support/scripted-server.ts";
import { clean, setUp } from "../support/set-up.ts";

const INFECTED = withBody("3\r\nbye\r\n0\r\n\r\n", "HTTP/1.1 403 No\r\n\r\n", "X-Virus-ID: Eicar\r\n");

/** A service that counts what came unasked, by a clock that stands still until it is set. */
async function counting(script: Script, options: Partial<IcapServiceOptions> = {}) {
  const told = { times: 0, now: 0 };
  const it = await setUp(script, { onUnsolicited: () => (told.times += 1), clock: () => told.now, ...options });
  return Object.assign(it, { told });
}

/** Every file is clean, and the sockets are kept. */
function remembering(): Script & { readonly sockets: Peer["socket"][] } {
  const sockets: Peer["socket"][] = [];
  const complete = ({ socket }: Peer): void => {
    sockets.push(socket);
    socket.write(CLEAN);
  };
  return { sockets, complete };
}

describe("bytes that nobody asked for", () => {
  it("on an idle connection are told, and for ten minutes no connection is used twice", async () => {
    const script = remembering();
    await using it = await counting(script);
    await scan(it.service, "hello");
    expect(it.told.times).toBe(0);
    script.sockets[0]?.write(CLEAN);
    await until(() => it.service.stats().open === 0);
    expect(it.told.times).toBe(1);
    for (it.told.now of [1, 300_000, 599_999]) {
      const before = it.server.count.connections;
      expect((await scan(it.service, "hello")).verdict.outcome).toBe("clean");
      expect(it.service.stats().idle).toBe(0);
      expect(it.server.count.connections).toBe(before + 1);
    }
    it.told.now = 600_000;
    await scan(it.service, "hello");
    await scan(it.service, "hello");
    expect(it.service.stats().idle).toBe(1);
    expect(it.told.times).toBe(1);
  });

  it("put an end to every idle connection", async () => {
    const sockets: Peer["socket"][] = [];
    await using it = await counting({ complete: ({ socket }) => void sockets.push(socket) });
    const both = [scan(it.service, "1"), scan(it.service, "2")];
    await until(() => sockets.length === 2);
    for (const socket of sockets) socket.write(CLEAN);
    await Promise.all(both);
    expect(it.service.stats().idle).toBe(2);
    sockets[0]?.write(CLEAN);
    await until(() => it.told.times === 1);
    expect(it.service.stats().idle).toBe(0);
  });

  it("tell late that a 204 was another file's", async () => {
    let first: Peer["socket"] | undefined;
    await using it = await counting({
      complete: ({ socket, received }) => {
        if (received().includes("FIRST")) first = socket;
        // The second answer to the first file comes once the second file is there; its own answer comes later.
        else setTimeout(() => socket.write(INFECTED), 30);
        socket.write(CLEAN);
      },
    });
    await scan(it.service, "FIRST");
    expect(first).toBeDefined();
    await scan(it.service, "SECOND");
    await until(() => it.told.times === 1);
  });

  it.each<[string, Script]>([
    ["an answer", { complete: ({ socket }) => socket.write(CLEAN + CLEAN) }],
    ["a block page", { complete: ({ socket }) => socket.write(`${INFECTED}\r\n`) }],
    ["the answer to OPTIONS", { ...clean, options: `${OPTIONS}\r\n` }],
  ])("behind %s are told", async (_, script) => {
    await using it = await counting(script);
    await codeOf(scan(it.service, "hello"));
    expect(it.told.times).toBe(1);
    expect(it.service.stats().idle).toBe(0);
  });

  it("before anything was sent on a kept connection are no answer: the file is sent on a new one", async () => {
    const script = remembering();
    await using it = await counting(script);
    await scan(it.service, "hello");
    let passes = 0;
    const { verdict } = await scan(it.service, "again", {
      async *body() {
        passes += 1;
        if (passes === 1) {
          script.sockets[0]?.write(INFECTED);
          await delay(100);
        }
        yield Buffer.from("again");
      },
    });
    expect({ verdict, passes, connections: it.server.count.connections }).toEqual({
      verdict: { outcome: "clean", how: "204" },
      passes: 2,
      connections: 2,
    });
    expect(it.told.times).toBe(1);
  });

  it("make nothing clean that was asked on a kept connection before, and let it be infected", async () => {
    const peers: Peer[] = [];
    await using it = await counting({ complete: (peer) => void peers.push(peer) });
    const take = async (count: number): Promise<Peer[]> => {
      await until(() => peers.length === count);
      return peers.splice(0);
    };
    const kept = [1, 2, 3].map((at) => scan(it.service, `kept ${at}`));
    for (const { socket } of await take(3)) socket.write(CLEAN);
    await Promise.all(kept);
    const one = codeOf(scan(it.service, "one"));
    const [asked] = await take(1);
    const two = codeOf(scan(it.service, "two"));
    const [other] = await take(1);
    const three = codeOf(scan(it.service, "three"));
    const [last] = await take(1);
    last?.socket.write(CLEAN + CLEAN);
    expect(await three).toBe("protocol");
    asked?.socket.write(CLEAN);
    other?.socket.write(INFECTED);
    expect(await one).toBe("protocol");
    expect(await two).toMatchObject({ resolved: { verdict: { outcome: "infected", threat: "Eicar" } } });
    expect(it.service.stats().idle).toBe(0);
  });
});

describe("a server that gives up waiting for a request", () => {
  const GOODBYE = "ICAP/1.0 408 Request timeout\r\nConnection: close\r\n\r\n";

  it("on an idle connection says nothing unasked", async () => {
    const script = remembering();
    await using it = await counting(script);
    await scan(it.service, "hello");
    script.sockets[0]?.end(GOODBYE);
    await until(() => it.service.stats().open === 0);
    expect(it.told.times).toBe(0);
    await scan(it.service, "hello");
    expect(it.service.stats().idle).toBe(1);
  });

  it("while a source is slow is asked on a new connection", async () => {
    const script = remembering();
    await using it = await counting(script);
    await scan(it.service, "hello");
    let passes = 0;
    const { verdict } = await scan(it.service, "again", {
      async *body() {
        passes += 1;
        if (passes === 1) {
          script.sockets[0]?.end(GOODBYE);
          await delay(100);
        }
        yield Buffer.from("again");
      },
    });
    expect({ outcome: verdict.outcome, passes, times: it.told.times }).toEqual({ outcome: "clean", passes: 2, times: 0 });
  });
});
