import { once } from "node:events";
import { type AddressInfo, type Socket, connect, createServer } from "node:net";
import { Worker } from "node:worker_threads";
import { describe, expect, it } from "vitest";
import { Connection } from "../../../icap/client/connection.ts";
import { IcapService } from "../../../icap/index.ts";
import { certificates } from "../support/certificates.ts";
import type { HastyServerData } from "../support/hasty-server.ts";
import { codeOf, scan, until } from "../support/scan.ts";
import { CLEAN } from "../support/scripted-server.ts";

const INFECTED =
  "ICAP/1.0 200 OK\r\nX-Infection-Found: Type=0; Resolution=2; Threat=Eicar;\r\nConnection: close\r\n" +
  "Encapsulated: res-hdr=0, null-body=45\r\n\r\nHTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";

async function hastyServer(data: Omit<HastyServerData, "closed">) {
  const closed = new SharedArrayBuffer(4);
  const worker = new Worker(new URL("../support/hasty-server.ts", import.meta.url), {
    workerData: { ...data, closed } satisfies HastyServerData,
  });
  const [port] = (await once(worker, "message")) as [number];
  return {
    url: `${data.tls ? "icaps" : "icap"}://127.0.0.1:${port}/scan`,
    /** Blocks this thread: what has arrived meanwhile is for the system alone to keep. */
    waitForClose: (): void => {
      if (Atomics.wait(new Int32Array(closed), 0, 0, 10_000) === "timed-out") throw new Error("the server did not close");
    },
    async [Symbol.asyncDispose]() {
      await worker.terminate();
    },
  };
}

const WAYS = [
  { tls: false, reset: false },
  { tls: false, reset: true },
  { tls: true, reset: false },
];

/** Has 100 chunks scanned, all but the first of them after the server has closed. */
async function scanOf(data: Omit<HastyServerData, "closed">): Promise<unknown> {
  await using server = await hastyServer(data);
  await using service = new IcapService({ url: server.url, ...(data.tls && { tls: { ca: certificates.ca } }) });
  const chunk = Buffer.alloc(64 * 1024);
  return await codeOf(
    scan(service, "", {
      size: chunk.length * 100,
      async *body() {
        yield chunk;
        server.waitForClose();
        for (let n = 1; n < 100; n++) yield chunk;
      },
    }),
  );
}

describe("a server that answers early and closes, with our next write failing before its answer was read", () => {
  it.each(WAYS)("is heard: %o", async (way) => {
    expect(await scanOf({ ...way, answer: INFECTED })).toMatchObject({
      resolved: { verdict: { outcome: "infected", threat: "Eicar" } },
    });
  });

  it.each(WAYS)("is not believed when it says clean: %o", async (way) => {
    const { resolved } = (await scanOf({ ...way, answer: CLEAN })) as { resolved?: { verdict: { outcome: string } } };
    expect(resolved?.verdict.outcome).toBe("error");
  });

  it.each(WAYS)("and has said half of it: %o", async (way) => {
    expect(await scanOf({ ...way, answer: INFECTED.slice(0, 60) })).toBe("closed_early");
  });

  it.each(WAYS)("and has said nothing: %o", async (way) => {
    expect(await scanOf({ ...way, answer: "" })).toBe("closed_early");
  });
});

async function pairOfSockets() {
  const server = createServer({ noDelay: true }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
  const [[peer]] = (await Promise.all([once(server, "connection"), once(socket, "connect")])) as [[Socket], unknown];
  peer.on("error", () => peer.destroy());
  const connection = new Connection(socket);
  const heard: string[] = [];
  connection.serve({
    data: (bytes) => heard.push(bytes.toString("latin1")),
    drained: () => heard.push("(drained)"),
    gone: () => heard.push("(gone)"),
    late: () => heard.push("(late)"),
  });
  return {
    connection,
    peer,
    socket,
    heard,
    async [Symbol.asyncDispose]() {
      connection.destroy();
      peer.destroy();
      await new Promise((resolve) => {
        server.close(resolve);
      });
    },
  };
}

describe("a connection", () => {
  it("that is paused reads nothing, holds the sender back, and loses nothing", async () => {
    await using pair = await pairOfSockets();
    pair.connection.pause();
    const size = 32 * 1024 * 1024;
    let written = false;
    pair.peer.end(Buffer.alloc(size, "x"), () => (written = true));
    // It goes on only once everything that lies between is full.
    let before = -1;
    await until(() => {
      const stuck = pair.peer.bytesWritten > 0 && pair.socket.bytesRead === before && before > 0;
      before = pair.socket.bytesRead;
      return stuck;
    });
    expect({ heard: pair.heard, written }).toEqual({ heard: [], written: false });
    expect(pair.socket.bytesRead).toBeLessThan(1024 * 1024);
    pair.connection.resume();
    await until(() => pair.heard.at(-1) === "(gone)");
    expect(pair.heard.slice(0, -1).join("").length).toBe(size);
  });

  it("that was paused reads again for its next owner", async () => {
    await using pair = await pairOfSockets();
    pair.connection.pause();
    const heard: string[] = [];
    const owner = { data: () => heard.push("data"), drained: () => undefined, gone: () => undefined, late: () => undefined };
    pair.connection.rest(owner, 60_000);
    pair.peer.write("x");
    await until(() => heard.length === 1);
  });

  it("that is destroyed says nothing more", async () => {
    await using pair = await pairOfSockets();
    pair.peer.write("x");
    pair.connection.destroy();
    await pair.connection.closed;
    expect(pair.heard).toEqual([]);
    expect(pair.connection.usable).toBe(false);
  });
});
