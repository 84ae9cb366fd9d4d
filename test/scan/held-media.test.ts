import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { type Harness, startHarness, TOKEN } from "../support/harness.ts";

const LARGE = randomBytes(3 * (1 << 20) + 17);
/** What a homeserver sends before it is known that the rest is not wanted. */
const BEGUN = 1 << 20;

/** A gateway that asks the homeserver each time, and holds large media. */
function holding(): Promise<Harness> {
  return startHarness({ mediaMemory: 16 << 20, smallestHeld: (1 << 20) + 1 });
}

describe("large media that is held", () => {
  it("leaves once the homeserver has said yes, which then need not send the rest", async () => {
    await using gateway = await holding();
    const mxc = gateway.put(LARGE, { contentType: "image/png", contentDisposition: 'inline; filename="a.png"' });
    await gateway.get(`download/${mxc}`, TOKEN);
    // It would never come to its end.
    gateway.homeserver.behaviour = { stallAfter: BEGUN };
    for (const method of ["GET", "HEAD"]) {
      const again = await gateway.get(`download/${mxc}`, TOKEN, { method });
      expect([again.status, again.headers.get("content-type")]).toEqual([200, "image/png"]);
      expect(again.headers.get("content-length")).toBe(String(LARGE.length));
      expect(again.body.equals(method === "GET" ? LARGE : Buffer.alloc(0))).toBe(true);
    }
    expect([gateway.homeserver.requests.length, gateway.scanner.scanned.length]).toEqual([3, 1]);
  });

  it("has the headers of the answer to the very request", async () => {
    await using gateway = await holding();
    const mxc = gateway.put(LARGE, { contentType: "image/png" });
    await gateway.get(`download/${mxc}`, TOKEN);
    gateway.homeserver.behaviour = { headers: { "content-type": "image/jpeg" } };
    expect((await gateway.get(`download/${mxc}`, TOKEN)).headers.get("content-type")).toBe("image/jpeg");
  });

  it("is nobody's to whom the homeserver says no", async () => {
    await using gateway = await holding();
    const mxc = gateway.put(LARGE, { readers: [TOKEN] });
    await gateway.get(`download/${mxc}`, TOKEN);
    gateway.homeserver.addToken("bob");
    for (const [token, status] of [
      ["bob", 502],
      ["mallory", 401],
      [undefined, 404],
    ] as const) {
      const refused = await gateway.get(`download/${mxc}`, token);
      expect([refused.status, refused.body.includes(LARGE.subarray(0, 64))]).toEqual([status, false]);
    }
  });

  it("is asked for anew when the homeserver has something of another size, and not handed on when it is blocked", async () => {
    await using gateway = await holding();
    const mxc = gateway.put(LARGE);
    await gateway.get(`download/${mxc}`, TOKEN);
    gateway.overrides.set("block", LARGE);
    expect((await gateway.get(`download/${mxc}`, TOKEN)).status).toBe(403);
    gateway.overrides.lift(LARGE);
    const other = Buffer.concat([LARGE, Buffer.from("!")]);
    gateway.homeserver.put(mxc.split("/")[1] ?? "", { bytes: other });
    expect((await gateway.get(`download/${mxc}`, TOKEN)).body.equals(other)).toBe(true);
    expect(gateway.scanner.scanned.length).toBe(2);
  });

  it("is no small media, of which to cut the connection costs more", async () => {
    await using gateway = await holding();
    const small = LARGE.subarray(0, 1 << 20);
    const mxc = gateway.put(small);
    await gateway.get(`download/${mxc}`, TOKEN);
    const other = Buffer.from(small);
    other[0] = (other[0] ?? 0) ^ 1;
    gateway.homeserver.put(mxc.split("/")[1] ?? "", { bytes: other });
    expect((await gateway.get(`download/${mxc}`, TOKEN)).body.equals(other)).toBe(true);
  });
});
