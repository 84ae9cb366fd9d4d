import { once } from "node:events";
import { connect } from "node:net";
import { describe, expect, it, onTestFinished } from "vitest";
import type { GatewayError } from "../../src/errors.ts";
import { type Application, type Listener, listen } from "../../src/http/server.ts";

async function start(app: Application): Promise<Listener & { url: string }> {
  const listener = await listen(app, { host: "127.0.0.1", port: 0 });
  onTestFinished(() => listener.close(AbortSignal.abort()));
  return { ...listener, url: `http://127.0.0.1:${listener.address.port}` };
}

/** Everything that comes back for these very bytes. */
async function exchange(port: number, bytes: string): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  let received = "";
  socket.setEncoding("latin1").on("data", (text: string) => (received += text));
  socket.end(bytes);
  await once(socket, "close");
  return received;
}

describe("a listener that ends", () => {
  it("lets whoever is being answered have all of it, and takes no one new", async () => {
    const asked = Promise.withResolvers<void>();
    const answer = Promise.withResolvers<Response>();
    const listener = await start({
      fetch: () => {
        asked.resolve();
        return answer.promise;
      },
    });
    const response = fetch(listener.url);
    await asked.promise;
    const closed = listener.close(new AbortController().signal);
    await expect(fetch(listener.url)).rejects.toThrow();
    answer.resolve(new Response("all of it"));
    expect(await (await response).text()).toBe("all of it");
    await closed;
  });

  it("cuts off whoever is still being answered when its limit is over", async () => {
    const asked = Promise.withResolvers<void>();
    const listener = await start({
      fetch: () => {
        asked.resolve();
        return new Promise(() => undefined);
      },
    });
    const outcome = expect(fetch(listener.url)).rejects.toThrow();
    await asked.promise;
    const limit = new AbortController();
    const closed = listener.close(limit.signal);
    limit.abort();
    await closed;
    await outcome;
  });
});

describe("what is hardly HTTP", () => {
  it.each([
    ["a Host that is none", "GET /x HTTP/1.1\r\nHost: a b c\r\n\r\n"],
    ["a backslash in the path", "GET /x\\y HTTP/1.1\r\nHost: a\r\n\r\n"],
  ])("%s is 400 M_UNRECOGNIZED, and the application hears of it", async (_, bytes) => {
    const refused: string[] = [];
    const listener = await start({
      fetch: () => new Response("an answer"),
      refused: ({ code }) => refused.push(code),
    });
    const answer = await exchange(listener.address.port, bytes);
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
    expect(answer).toMatch(/cache-control: private, no-store/i);
    expect(answer).toContain('{"errcode":"M_UNRECOGNIZED","error":"Unrecognized request"}');
    expect(refused).toEqual(["bad_request"]);
    expect(await (await fetch(listener.url)).text()).toBe("an answer");
  });

  it("what the application itself throws is a fault of the gateway, not the client's", async () => {
    const refused: GatewayError[] = [];
    const listener = await start({
      fetch: () => Promise.reject(new TypeError("a secret")),
      refused: (failure) => refused.push(failure),
    });
    const answer = await fetch(listener.url);
    expect([answer.status, await answer.json()]).toEqual([500, { reason: "M_UNKNOWN", info: "Internal error" }]);
    expect(refused.map(({ code }) => code)).toEqual(["internal"]);
  });
});
