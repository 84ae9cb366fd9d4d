import { describe, expect, it } from "vitest";
import { IcapService } from "../../../icap/index.ts";
import { codeOf, scan, until } from "../support/scan.ts";
import { CLEAN, OPTIONS, type Peer, scriptedServer } from "../support/scripted-server.ts";

/** A server whose scans end when the test says so. */
async function held(options = OPTIONS) {
  const peers: Peer[] = [];
  const server = await scriptedServer({ options, complete: (peer) => peers.push(peer) });
  return Object.assign(server, {
    peers,
    release: (): void => {
      for (const { socket } of peers.splice(0)) socket.write(CLEAN);
    },
  });
}

describe("the pool", () => {
  it.each([
    ["what is configured", OPTIONS, 4, 3],
    ["what OPTIONS allows", OPTIONS.replace("Allow", "Max-Connections: 2\r\nAllow"), 16, 1],
  ])("never has more connections than %s", async (_, options, maxConnections, ordinary) => {
    await using server = await held(options);
    await using service = new IcapService({ url: server.url, maxConnections });
    const scans = Array.from({ length: 20 }, () => scan(service, "hello"));
    const priority = Array.from({ length: 5 }, () => scan(service, "hello", { priority: true }));
    await until(() => server.peers.length === ordinary + 1);
    expect(service.capacity).toBe(ordinary);
    expect(service.stats()).toMatchObject({ open: ordinary + 1, idle: 0, busy: ordinary + 1, waiting: 25 - ordinary - 1 });
    const all = Promise.all([...scans, ...priority]);
    let done = false;
    void all.then(() => (done = true));
    await until(() => {
      server.release();
      return done;
    });
    expect(server.count.peak).toBe(ordinary + 1);
    expect(server.count.connections).toBe(ordinary + 1);
    expect((await all).every(({ verdict }) => verdict.outcome === "clean")).toBe(true);
  });

  it("leaves the reserved connection to priority scans", async () => {
    await using server = await held();
    await using service = new IcapService({ url: server.url, maxConnections: 3 });
    const ordinary = [1, 2, 3].map(() => scan(service, "ordinary"));
    await until(() => server.peers.length === 2);
    expect(service.stats().waiting).toBe(1);
    const priority = scan(service, "priority", { priority: true });
    await until(() => server.peers.length === 3);
    expect(server.peers[2]?.received()).toContain("priority");
    // A priority scan that runs takes none of the ordinary places.
    server.peers.splice(0, 1)[0]?.socket.write(CLEAN);
    await until(() => server.peers.length === 3);
    expect(service.stats().waiting).toBe(0);
    server.release();
    await Promise.all([...ordinary, priority]);
  });

  it("with one connection lets priority scans go first, the others in order", async () => {
    await using server = await held();
    await using service = new IcapService({ url: server.url, maxConnections: 1 });
    expect(service.capacity).toBe(1);
    await service.options(new AbortController().signal);
    const order: string[] = [];
    const scans = [];
    for (const name of ["a", "b", "c", "P"]) {
      scans.push(scan(service, name, { priority: name === "P" }).then(() => order.push(name)));
      await until(() => service.stats().busy + service.stats().waiting === scans.length);
    }
    while (order.length < 4) {
      const before = order.length;
      await until(() => server.peers.length === 1);
      server.release();
      await until(() => order.length > before);
    }
    await Promise.all(scans);
    expect(order).toEqual(["a", "P", "b", "c"]);
  });

  it("refuses an ordinary scan when the line is full, never a priority scan", async () => {
    await using server = await held();
    await using service = new IcapService({ url: server.url, maxConnections: 2, maxWaiting: 2 });
    const scans = [1, 2, 3].map(() => scan(service, "hello"));
    await until(() => server.peers.length === 1 && service.stats().waiting === 2);
    const refused = await scan(service, "hello").catch((error: unknown) => error);
    expect(refused).toMatchObject({ name: "IcapError", code: "busy" });
    expect(service.stats()).toMatchObject({ busy: 1, waiting: 2 });
    const priority = [1, 2, 3, 4].map(() => scan(service, "hello", { priority: true }));
    await until(() => service.stats().waiting === 5);
    const leaving = scan(service, "hello", { priority: true, signal: AbortSignal.timeout(1) });
    expect(await codeOf(leaving)).not.toBe("busy");
    const all = Promise.all([...scans, ...priority]);
    let done = false;
    void all.then(() => (done = true));
    await until(() => {
      server.release();
      return done;
    });
    // There is room again.
    const last = scan(service, "hello");
    await until(() => server.peers.length === 1);
    server.release();
    expect((await last).verdict.outcome).toBe("clean");
  });

  it("without a line takes only whom it can serve at once", async () => {
    await using server = await held();
    await using service = new IcapService({ url: server.url, maxConnections: 1, maxWaiting: 0 });
    const first = scan(service, "hello");
    await until(() => server.peers.length === 1);
    expect(await codeOf(scan(service, "hello"))).toBe("busy");
    server.release();
    await first;
  });

  it("lets who waits leave the line", async () => {
    await using server = await held();
    await using service = new IcapService({ url: server.url, maxConnections: 1 });
    const first = scan(service, "hello");
    await until(() => server.peers.length === 1);
    const controller = new AbortController();
    const second = scan(service, "hello", { signal: controller.signal });
    await until(() => service.stats().waiting === 1);
    controller.abort(new Error("enough"));
    await expect(second).rejects.toThrow("enough");
    expect(service.stats().waiting).toBe(0);
    server.release();
    expect((await first).verdict.outcome).toBe("clean");
  });

  it("takes the connection that was used last", async () => {
    await using server = await held();
    await using service = new IcapService({ url: server.url, maxConnections: 4 });
    const both = [scan(service, "1"), scan(service, "2")];
    await until(() => server.peers.length === 2);
    const [first, second] = server.peers.splice(0);
    second?.socket.write(CLEAN);
    await both[second?.received().includes("\r\n2\r\n") === true ? 1 : 0];
    first?.socket.write(CLEAN);
    await Promise.all(both);
    const third = scan(service, "3");
    await until(() => server.peers.length === 1);
    expect(server.peers[0]?.socket).toBe(first?.socket);
    server.release();
    await third;
  });

  it("opens no connection before the one it replaces is closed", async () => {
    await using server = await scriptedServer({ complete: ({ socket }) => socket.write("nonsense\r\n\r\n") });
    await using service = new IcapService({ url: server.url, maxConnections: 1 });
    const scans = Promise.all(Array.from({ length: 20 }, () => codeOf(scan(service, "hello"))));
    let most = 0;
    let done = false;
    const watch = (): void => {
      most = Math.max(most, service.stats().open);
      if (!done) setImmediate(watch);
    };
    watch();
    expect(await scans).toEqual(Array<string>(20).fill("protocol"));
    done = true;
    expect(most).toBe(1);
  });

  it("closes a connection when it was idle for its time", async () => {
    await using server = await scriptedServer({ complete: ({ socket }) => socket.write(CLEAN) });
    await using service = new IcapService({ url: server.url, timeouts: { idle: 20 } });
    await scan(service, "hello");
    await until(() => server.count.open === 0 && service.stats().open === 0);
  });

  it("closes an idle connection on which bytes come", async () => {
    const sockets: Peer["socket"][] = [];
    await using server = await scriptedServer({
      complete: ({ socket }) => {
        sockets.push(socket);
        socket.write(CLEAN);
      },
    });
    await using service = new IcapService({ url: server.url });
    await scan(service, "hello");
    sockets[0]?.write(CLEAN);
    await until(() => service.stats().open === 0);
    expect((await scan(service, "hello")).verdict.outcome).toBe("clean");
    expect(server.count.connections).toBe(2);
  });

  it("does not use a connection again that the server closes", async () => {
    await using server = await scriptedServer({
      complete: ({ socket }) => socket.write("ICAP/1.0 204 OK\r\nConnection: foo, Close\r\n\r\n"),
    });
    await using service = new IcapService({ url: server.url });
    await scan(service, "hello");
    expect(service.stats().idle).toBe(0);
    expect((await scan(service, "hello")).verdict.outcome).toBe("clean");
    expect(server.count.connections).toBe(2);
  });
});

describe("a kept connection that the server closed", () => {
  it("is tried once more on a new one, with another pass over the body", async () => {
    await using server = await scriptedServer({
      complete: ({ socket, request }) => (request === 2 ? socket.destroy() : socket.write(CLEAN)),
    });
    await using service = new IcapService({ url: server.url });
    await scan(service, "hello");
    let passes = 0;
    const result = await scan(service, "again", {
      async *body() {
        passes++;
        yield Buffer.from("again");
      },
    });
    expect(result.verdict.outcome).toBe("clean");
    expect(passes).toBe(2);
    expect(server.count).toMatchObject({ requests: 3, connections: 2, peak: 1 });
  });

  it("was kept: one that was new is not tried again", async () => {
    await using server = await scriptedServer({
      options: OPTIONS.replace("Allow", "Connection: close\r\nAllow"),
      complete: ({ socket }) => socket.destroy(),
    });
    await using service = new IcapService({ url: server.url });
    expect(await codeOf(scan(service, "hello"))).toBe("closed_early");
    expect(server.count.requests).toBe(1);
  });

  it("is not tried again when the new one is closed as well", async () => {
    await using server = await scriptedServer({ complete: ({ socket }) => socket.destroy() });
    await using service = new IcapService({ url: server.url });
    expect(await codeOf(scan(service, "hello"))).toBe("closed_early");
    expect(server.count.requests).toBe(2);
  });

  it("is not tried again after one byte of an answer", async () => {
    await using server = await scriptedServer({ complete: ({ socket }) => socket.end("I") });
    await using service = new IcapService({ url: server.url });
    expect(await codeOf(scan(service, "hello"))).toBe("closed_early");
    expect(server.count.requests).toBe(1);
  });

  it("is not tried again after a timeout", async () => {
    await using server = await scriptedServer({});
    await using service = new IcapService({ url: server.url, timeouts: { answer: 400 } });
    expect(await codeOf(scan(service, "hello"))).toBe("timeout");
    expect(server.count.requests).toBe(1);
  });
});
