/** What of a client's request goes on to the homeserver, and who it is taken for. */
import { describe, expect, it } from "vitest";
import { startHarness, TOKEN } from "../support/harness.ts";

describe("the client's headers", () => {
  it("those of headers_to_forward and Authorization go on to the homeserver, and no others", async () => {
    await using gateway = await startHarness();
    const mxc = gateway.put(Buffer.from("text"));
    const headers = {
      "X-Forwarded-Test": "kept",
      "x-other": "dropped",
      "x-forwarded-for": "198.51.100.1",
      "user-agent": "a client",
      cookie: "a=b",
      range: "bytes=0-1",
    };
    expect((await gateway.get(`download/${mxc}`, TOKEN, { headers })).body.toString()).toBe("text");
    const sent = gateway.homeserver.requests[0]?.headers ?? {};
    expect(sent).toMatchObject({ "x-forwarded-test": "kept", authorization: `Bearer ${TOKEN}` });
    for (const name of ["x-other", "x-forwarded-for", "cookie", "range"]) expect(sent, name).not.toHaveProperty(name);
    expect(sent["user-agent"]).not.toBe("a client");
  });

  it("what one client sends is not sent for the next", async () => {
    await using gateway = await startHarness();
    const mxc = gateway.put(Buffer.from("text"), { unauthenticated: true });
    await gateway.get(`download/${mxc}`, TOKEN, { headers: { "x-forwarded-test": "mine" } });
    await gateway.get(`download/${mxc}`);
    const [, next] = gateway.homeserver.requests;
    expect(next?.headers).not.toHaveProperty("x-forwarded-test");
    expect(next?.headers).not.toHaveProperty("authorization");
  });
});

describe("a client's share", () => {
  it("is its token's, however the header is written, and no other token's", async () => {
    await using gateway = await startHarness({ admission: { maxPerClient: 1 } });
    gateway.homeserver.addToken("bob");
    const known = gateway.put(Buffer.from("known"));
    for (const token of [TOKEN, "bob"]) expect((await gateway.get(`download/${known}`, token)).status).toBe(200);

    const release = Promise.withResolvers<void>();
    gateway.scanner.hold = release.promise;
    const held = gateway.get(`download/${gateway.put(Buffer.from("held"))}`, TOKEN);
    await expect.poll(() => gateway.scanner.begun).toBe(2);
    for (const authorization of [`Bearer ${TOKEN}`, `bearer ${TOKEN}`, `BEARER   ${TOKEN}`, `Bearer\t${TOKEN}`]) {
      const answer = await gateway.get(`download/${known}`, undefined, { headers: { authorization } });
      expect([answer.status, answer.json["errcode"]], authorization).toEqual([429, "M_LIMIT_EXCEEDED"]);
    }
    expect((await gateway.get(`download/${known}`, "bob")).status).toBe(200);
    release.resolve();
    expect((await held).status).toBe(200);
  });
});
