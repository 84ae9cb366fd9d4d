import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { EICAR } from "../../src/scan/canary-samples.ts";
import { encryptFile } from "../support/encrypted-file.ts";
import { type Harness, type HarnessOptions, startHarness, TOKEN } from "../support/harness.ts";

const TTL = 30_000;
const SMALL = Buffer.from("some text");
const LARGE = randomBytes(3 * (1 << 20) + 17);

/** A gateway that remembers permissions by a clock of the test's. */
async function remembering(more: HarnessOptions = {}): Promise<{ gateway: Harness; clock: { now: number }; asked: () => number }> {
  const clock = { now: 1_000_000 };
  const gateway = await startHarness({ authorizationTtl: TTL, mediaMemory: 16 << 20, now: () => clock.now, ...more });
  return { gateway, clock, asked: () => gateway.homeserver.requests.length };
}

describe("a permission of a moment ago", () => {
  it("suffices for bytes, their head and their verdict, and not for longer than it was given for", async () => {
    for (const bytes of [SMALL, LARGE]) {
      const { gateway, clock, asked } = await remembering();
      await using _gateway = gateway;
      const mxc = gateway.put(bytes, { contentType: "image/png", contentDisposition: 'inline; filename="a.png"' });
      const first = await gateway.get(`download/${mxc}`, TOKEN);
      expect(asked()).toBe(1);
      clock.now += TTL - 1;
      const again = await gateway.get(`download/${mxc}`, TOKEN);
      expect([again.status, again.body.equals(bytes)]).toEqual([200, true]);
      for (const name of ["content-type", "content-disposition", "content-length", "content-security-policy"]) {
        expect(again.headers.get(name), name).toBe(first.headers.get(name));
      }
      const head = await gateway.get(`download/${mxc}`, TOKEN, { method: "HEAD" });
      expect([head.status, head.headers.get("content-length")]).toEqual([200, String(bytes.length)]);
      expect((await gateway.get(`scan/${mxc}`, TOKEN)).json).toEqual({ clean: true, info: "File is clean" });
      expect([asked(), gateway.scanner.scanned.length]).toEqual([1, 1]);
      clock.now += 1;
      expect((await gateway.get(`download/${mxc}`, TOKEN)).body.equals(bytes)).toBe(true);
      expect(asked()).toBe(2);
      expect(gateway.reports.map(({ journal }) => [journal.size, journal.verdict])).toEqual(
        expect.arrayContaining([[bytes.length, "clean"]]),
      );
    }
  });

  it("is one token's, for one media in one form: all others ask for themselves", async () => {
    const { gateway, asked } = await remembering();
    await using _gateway = gateway;
    const mxc = gateway.put(SMALL, { readers: [TOKEN], thumbnail: { bytes: Buffer.from("thumb"), contentType: "image/png" } });
    const other = gateway.put(SMALL);
    await gateway.get(`download/${mxc}`, TOKEN);
    gateway.homeserver.addToken("bob");
    expect((await gateway.get(`download/${mxc}`, "bob")).status).toBe(502);
    expect((await gateway.get(`scan/${mxc}`, "bob")).status).toBe(502);
    expect((await gateway.get(`download/${mxc}`, "mallory")).status).toBe(401);
    expect((await gateway.get(`download/${mxc}`)).status).toBe(404);
    const before = asked();
    expect((await gateway.get(`thumbnail/${mxc}?width=32&height=32&method=scale`, TOKEN)).body.toString()).toBe("thumb");
    expect((await gateway.get(`download/${other}`, TOKEN)).body.equals(SMALL)).toBe(true);
    expect(asked()).toBe(before + 2);
  });

  it("ends at once when the homeserver refuses the media, and with all others of a token that it does not know any more", async () => {
    const { gateway, asked } = await remembering({ mediaMemory: 0 });
    await using _gateway = gateway;
    const [one, two] = [gateway.put(SMALL), gateway.put(LARGE)];
    for (const mxc of [one, two]) await gateway.get(`scan/${mxc}`, TOKEN);
    // Without the bytes in memory, a download asks, and hears of it.
    for (const status of [403, 404]) {
      gateway.homeserver.behaviour = { answer: { status, body: { errcode: "M_FORBIDDEN", error: "no" } } };
      expect((await gateway.get(`download/${one}`, TOKEN)).status).toBe(status === 404 ? 404 : 502);
      const before = asked();
      expect((await gateway.get(`scan/${one}`, TOKEN)).json["clean"]).toBeUndefined();
      expect((await gateway.get(`scan/${two}`, TOKEN)).json["clean"]).toBe(true);
      expect(asked()).toBe(before + 1);
      gateway.homeserver.behaviour = {};
      expect((await gateway.get(`scan/${one}`, TOKEN)).json["clean"]).toBe(true);
    }
    gateway.homeserver.addToken(TOKEN, "expired");
    expect((await gateway.get(`download/${one}`, TOKEN)).status).toBe(401);
    for (const mxc of [one, two]) expect((await gateway.get(`scan/${mxc}`, TOKEN)).status).toBe(401);
  });

  it("that was asked for before the token was refused, and comes after it, counts for nothing", async () => {
    const { gateway } = await remembering();
    await using _gateway = gateway;
    const [slow, other] = [gateway.put(SMALL, { contentType: "image/png" }), gateway.put(LARGE, { contentType: "image/png" })];
    for (const mxc of [slow, other]) await gateway.get(`scan/${mxc}`, TOKEN);
    const held = Promise.withResolvers<void>();
    gateway.homeserver.hold = held.promise;
    const late = gateway.get(`thumbnail/${slow}?width=32&height=32&method=scale`, TOKEN);
    await expect.poll(() => gateway.homeserver.requests.some(({ path }) => path.includes("thumbnail"))).toBe(true);
    gateway.homeserver.hold = undefined;
    gateway.homeserver.addToken(TOKEN, "expired");
    expect((await gateway.get(`thumbnail/${other}?width=32&height=32&method=scale`, TOKEN)).status).toBe(401);
    held.resolve();
    expect((await late).status).toBe(200);
    expect((await gateway.get(`thumbnail/${slow}?width=32&height=32&method=scale`, TOKEN)).status).toBe(401);
  });

  it("that is answered late counts for nothing once the same media was refused", async () => {
    const { gateway } = await remembering({ mediaMemory: 0 });
    await using _gateway = gateway;
    const mxc = gateway.put(SMALL);
    await gateway.get(`scan/${mxc}`, TOKEN);
    const held = Promise.withResolvers<void>();
    gateway.homeserver.hold = held.promise;
    const asked = gateway.homeserver.requests.length;
    const late = gateway.get(`download/${mxc}`, TOKEN);
    await expect.poll(() => gateway.homeserver.requests.length).toBe(asked + 1);
    gateway.homeserver.hold = undefined;
    gateway.homeserver.behaviour = { answer: { status: 403, body: { errcode: "M_FORBIDDEN", error: "no" } } };
    expect((await gateway.get(`download/${mxc}`, TOKEN)).status).toBe(502);
    held.resolve();
    expect((await late).status).toBe(200);
    expect((await gateway.get(`scan/${mxc}`, TOKEN)).json["clean"]).toBeUndefined();
  });

  it("is no verdict: what is blocked, found infected or to be scanned again is not handed out", async () => {
    const { gateway, asked } = await remembering();
    await using _gateway = gateway;
    const mxc = gateway.put(SMALL);
    await gateway.get(`download/${mxc}`, TOKEN);
    gateway.overrides.set("block", SMALL);
    expect((await gateway.get(`download/${mxc}`, TOKEN)).status).toBe(403);
    expect((await gateway.get(`scan/${mxc}`, TOKEN)).json["clean"]).toBe(false);
    gateway.overrides.lift(SMALL);
    gateway.scanner.tag = "signatures-2";
    gateway.scanner.finds = SMALL;
    const before = asked();
    expect((await gateway.get(`download/${mxc}`, TOKEN)).status).toBe(403);
    expect([asked(), gateway.scanner.scanned.length]).toEqual([before + 1, 2]);
    expect((await gateway.get(`download/${mxc}`, TOKEN)).status).toBe(403);
  });

  it("is not there unless an operator wants it", async () => {
    await using gateway = await startHarness({ mediaMemory: 1 << 20 });
    const mxc = gateway.put(SMALL);
    for (let times = 1; times <= 3; times += 1) {
      await gateway.get(`download/${mxc}`, TOKEN);
      expect(gateway.homeserver.requests.length).toBe(times);
    }
  });

  it("for one's own media is none for another's, though it is the same ciphertext, nor lends it its name", async () => {
    const { gateway, asked } = await remembering();
    await using _gateway = gateway;
    const file = await encryptFile(LARGE);
    gateway.homeserver.addToken("mallory");
    const real = gateway.put(file.ciphertext, { readers: [TOKEN], contentType: "image/png" });
    const own = gateway.put(file.ciphertext, { contentType: "application/pdf", contentDisposition: 'attachment; filename="evil.exe"' });
    const other = gateway.put(SMALL);
    expect((await gateway.post("download_encrypted", { file: file.file(real) }, TOKEN)).status).toBe(200);
    expect((await gateway.get(`download/${other}`, "mallory")).status).toBe(200);
    // The hash is known, but what the homeserver let mallory read is other media.
    const before = asked();
    const stolen = await gateway.post("download_encrypted", { file: file.file(other) }, "mallory");
    expect([stolen.body.equals(file.ciphertext), stolen.status]).toEqual([false, 400]);
    expect(asked()).toBeGreaterThan(before);
    expect((await gateway.post("download_encrypted", { file: file.file(own) }, "mallory")).status).toBe(200);
    const again = await gateway.post("download_encrypted", { file: file.file(real) }, TOKEN);
    expect([again.headers.get("content-type"), again.headers.get("content-disposition")]).toEqual(["image/png", "inline"]);
  });

  it("hands out encrypted media as it came", async () => {
    const { gateway, asked } = await remembering();
    await using _gateway = gateway;
    const file = await encryptFile(LARGE);
    const body = { file: file.file(gateway.put(file.ciphertext)) };
    for (let times = 0; times < 3; times += 1) {
      expect((await gateway.post("download_encrypted", body, TOKEN)).body.equals(file.ciphertext)).toBe(true);
    }
    expect(asked()).toBe(1);
    const infected = await encryptFile(EICAR);
    const bad = { file: infected.file(gateway.put(infected.ciphertext)) };
    for (let times = 0; times < 2; times += 1) expect((await gateway.post("download_encrypted", bad, TOKEN)).status).toBe(403);
  });
});
