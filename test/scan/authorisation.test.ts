import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { GatewayError } from "../../src/errors.ts";
import { encryptFile } from "../support/encrypted-file.ts";
import { EICAR } from "../../src/scan/canary-samples.ts";
import { FakeScanner } from "../support/fake-scanner.ts";
import { startHarness, TOKEN } from "../support/harness.ts";

const MEDIA = randomBytes(3 << 20);

/** As seen from one address. */
const context = (user: string | undefined) => ({ ...(user === undefined ? {} : { user }), clientAddress: "192.0.2.1" });

describe("every request gets its own yes from the homeserver", () => {
  it("media fetched with a good token is refused to others: cached or not, small or large, bytes or verdict", async () => {
    for (const bytes of [MEDIA.subarray(0, 100), MEDIA]) {
      await using gateway = await startHarness();
      const mxc = gateway.put(bytes);
      expect((await gateway.get(`download/${mxc}`, TOKEN)).body).toEqual(bytes);
      for (const path of [`download/${mxc}`, `scan/${mxc}`]) {
        expect((await gateway.get(path)).status, `${path} without a token`).toBe(404);
        const stranger = await gateway.get(path, "mallory");
        expect([stranger.status, stranger.json["errcode"], stranger.json["reason"]]).toEqual([401, "M_UNKNOWN_TOKEN", "M_UNKNOWN_TOKEN"]);
        expect((await gateway.get(path, "mallory", { method: "HEAD" })).status).toBe(401);
      }
      gateway.homeserver.addToken("bob");
      expect((await gateway.get(`download/${mxc}`, "bob")).body).toEqual(bytes);
      expect(gateway.scanner.scanned).toHaveLength(1);
    }
  });

  it("who joins a scan under way with a bad token gets nothing, and no verdict", async () => {
    await using gateway = await startHarness();
    const release = Promise.withResolvers<void>();
    gateway.scanner.hold = release.promise;
    const mxc = gateway.put(MEDIA);
    const good = gateway.get(`download/${mxc}`, TOKEN);
    await expect.poll(() => gateway.scanner.begun).toBe(1);
    const others = [`download/${mxc}`, `scan/${mxc}`].map((path) => gateway.get(path, "mallory"));
    release.resolve();
    expect((await good).body).toEqual(MEDIA);
    for (const other of await Promise.all(others)) expect(other.status).toBe(401);
  });

  it("a leader's refusal is its own: those who waited for it ask for themselves", async () => {
    await using gateway = await startHarness();
    const mxc = gateway.put(MEDIA);
    const answers = await Promise.all(["mallory", TOKEN, "mallory", TOKEN].map((token) => gateway.get(`download/${mxc}`, token)));
    expect(answers.map(({ status }) => status)).toEqual([401, 200, 401, 200]);
    expect(gateway.scanner.scanned).toHaveLength(1);
  });

  it("what became of somebody else's scan is told only to those who may read the media", async () => {
    for (const [size, failure, status] of [
      [3 << 20, undefined, 200],
      [2000, new GatewayError("scanner_unavailable"), 503],
    ] as const) {
      await using gateway = await startHarness({ pipeline: { maxFileSize: 2 << 20 } });
      gateway.homeserver.addToken("bob");
      gateway.scanner.failure = failure;
      const release = Promise.withResolvers<void>();
      gateway.scanner.hold = release.promise;
      const mxc = gateway.put(randomBytes(size), { readers: [TOKEN], behaviour: { chunked: true, drip: { bytes: size / 20, pause: 20 } } });
      const leader = gateway.get(`scan/${mxc}`, TOKEN);
      await expect.poll(() => gateway.homeserver.requests.length).toBe(1);
      const followers = [TOKEN, "bob", "mallory", undefined].map((token) => gateway.get(`scan/${mxc}`, token));
      release.resolve();
      expect((await leader).status).toBe(status);
      const answers = await Promise.all(followers);
      expect(answers.map((answer) => answer.status)).toEqual([status, 502, 401, 404]);
      expect(answers.slice(1).map((answer) => answer.json["clean"])).toEqual([undefined, undefined, undefined]);
    }
  });

  it("who names other media beside the hash of known media spoils nothing for those who name the right one", async () => {
    await using gateway = await startHarness();
    const file = await encryptFile(MEDIA);
    const right = file.file(gateway.put(file.ciphertext));
    const wrong = file.file(gateway.put(randomBytes(1000)));
    const answers = await Promise.all(
      [wrong, right, wrong, right].map((body) => gateway.post("download_encrypted", { file: body }, TOKEN)),
    );
    expect(answers.map(({ status }) => status)).toEqual([400, 200, 400, 200]);
  });

  it("the bytes of encrypted media need the homeserver's yes too; the verdict needs only hash, key and IV", async () => {
    await using gateway = await startHarness();
    const file = await encryptFile(MEDIA);
    const body = { file: file.file(gateway.put(file.ciphertext)) };
    expect((await gateway.post("scan_encrypted", body, "mallory")).status).toBe(401);
    expect((await gateway.post("scan_encrypted", body, TOKEN)).json["clean"]).toBe(true);
    expect((await gateway.post("download_encrypted", body, "mallory")).status).toBe(401);
    const asked = gateway.homeserver.requests.length;
    expect((await gateway.post("scan_encrypted", body, "mallory")).json["clean"]).toBe(true);
    expect(gateway.homeserver.requests).toHaveLength(asked);
  });

  it("an infected verdict is not told to those who may not read the media", async () => {
    await using gateway = await startHarness();
    const mxc = gateway.put(EICAR, { readers: [TOKEN] });
    expect((await gateway.get(`scan/${mxc}`, TOKEN)).json["clean"]).toBe(false);
    gateway.homeserver.addToken("bob");
    expect((await gateway.get(`scan/${mxc}`, "bob")).json["clean"]).toBeUndefined();
  });
});

describe("scanners that are told who asks", () => {
  it("what they said to one user is not another's: remembered or at once, small or large, plain or encrypted", async () => {
    for (const bytes of [MEDIA.subarray(0, 100), MEDIA]) {
      const scanner = new FakeScanner("dlp", { identities: ["user"] });
      await using gateway = await startHarness({ scanners: [scanner, new FakeScanner("antivirus")], context });
      gateway.homeserver.addToken("bob");
      const mxc = gateway.put(bytes);
      for (const token of [TOKEN, "bob", TOKEN, "bob"]) expect((await gateway.get(`download/${mxc}`, token)).body).toEqual(bytes);
      expect(scanner.told).toEqual([{ user: TOKEN }, { user: "bob" }]);

      const release = Promise.withResolvers<void>();
      scanner.hold = release.promise;
      const changed = Buffer.from(bytes).fill(7, 0, 10);
      const other = gateway.put(changed);
      const answers = [TOKEN, "bob", TOKEN, "bob"].map((token) => gateway.get(`scan/${other}`, token));
      await expect.poll(() => scanner.begun).toBe(4);
      release.resolve();
      for (const answer of await Promise.all(answers)) expect(answer.json["clean"]).toBe(true);
      expect(scanner.begun).toBe(4);

      const file = await encryptFile(randomBytes(100));
      const body = { file: file.file(gateway.put(file.ciphertext)) };
      for (const token of [TOKEN, "bob", TOKEN, "bob"]) {
        expect((await gateway.post("scan_encrypted", body, token)).json["clean"]).toBe(true);
      }
      expect(scanner.told.slice(4)).toEqual([{ user: TOKEN }, { user: "bob" }]);
    }
  });

  it("they are told nothing else of who asks, and the others nothing at all", async () => {
    const scanners = [
      new FakeScanner("dlp", { identities: ["client_ip"] }),
      new FakeScanner("antivirus"),
      new FakeScanner("watcher", { required: false, identities: ["user"] }),
    ] as const;
    await using gateway = await startHarness({ scanners, context });
    gateway.homeserver.addToken("bob");
    const mxc = gateway.put(MEDIA);
    // From one address, and what an advisory scanner is told divides nothing: one scan for both.
    for (const token of [TOKEN, "bob"]) expect((await gateway.get(`download/${mxc}`, token)).status).toBe(200);
    await expect.poll(() => scanners.map(({ told }) => told)).toEqual([[{ clientAddress: "192.0.2.1" }], [undefined], [{ user: TOKEN }]]);
  });
});
