import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { GatewayError } from "../../src/errors.ts";
import { EICAR } from "../../src/scan/canary-samples.ts";
import { encryptFile } from "../support/encrypted-file.ts";
import { type Answer, type Harness, startHarness, TOKEN } from "../support/harness.ts";

const SMALL = Buffer.from("small");
const LARGE = randomBytes(5 * (1 << 20) + 4321);
const UNAVAILABLE = new GatewayError("scanner_unavailable", { detail: "told to fail" });
const BLOCKED = "This file was blocked by an administrator";

function expectBlocked(answer: Answer): void {
  expect([answer.status, answer.json]).toEqual([403, { reason: "MCS_MEDIA_NOT_CLEAN", info: BLOCKED }]);
}

function expectBlockedVerdict(answer: Answer): void {
  expect([answer.status, answer.json]).toEqual([200, { clean: false, info: BLOCKED }]);
}

/** However it is asked for. */
async function expectAllBlocked(gateway: Harness, mxc: string): Promise<void> {
  expectBlocked(await gateway.get(`download/${mxc}`, TOKEN));
  expectBlockedVerdict(await gateway.get(`scan/${mxc}`, TOKEN));
  expect((await gateway.get(`download/${mxc}`, TOKEN, { method: "HEAD" })).status).toBe(403);
}

describe("content that an operator blocked", () => {
  it("is refused wherever it lies, unknown or known to be clean, small or large, and passes when the block is lifted", async () => {
    for (const bytes of [SMALL, LARGE]) {
      await using gateway = await startHarness();
      const [known, unknown] = [gateway.put(bytes), gateway.put(bytes)];
      expect((await gateway.get(`download/${known}`, TOKEN)).body.equals(bytes)).toBe(true);
      gateway.overrides.set("block", bytes);
      for (const mxc of [known, unknown, known]) await expectAllBlocked(gateway, mxc);
      expect(gateway.reports.at(-1)?.journal.verdict).toBe("blocked");
      gateway.overrides.lift(bytes);
      for (const mxc of [known, unknown]) expect((await gateway.get(`download/${mxc}`, TOKEN)).body.equals(bytes)).toBe(true);
      // A block is no verdict: what was known before it is known after it. What is large was on its way to the scanner when it was recognised.
      expect(gateway.scanner.scanned.length).toBe(bytes === SMALL ? 1 : 2);
      await expect.poll(() => gateway.spooled()).toMatchObject({ memory: 0, disk: 0 });
    }
  });

  it("is refused although no scanner can be asked, though the operator lets such media pass, and is sent to none that is not at it already", async () => {
    await using gateway = await startHarness({ policy: { onUnavailable: "allow", onUnscannable: "allow" } });
    gateway.scanner.failure = UNAVAILABLE;
    gateway.overrides.set("block", SMALL);
    await expectAllBlocked(gateway, gateway.put(SMALL));
    expect(gateway.scanner.begun).toBe(0);
    gateway.overrides.set("block", LARGE);
    await expectAllBlocked(gateway, gateway.put(LARGE));
  });

  it("is not downloaded again each time that it is asked for", async () => {
    await using gateway = await startHarness();
    gateway.overrides.set("block", LARGE);
    const mxc = gateway.put(LARGE);
    expectBlocked(await gateway.get(`download/${mxc}`, TOKEN));
    gateway.homeserver.behaviour = { stallAfter: 1000 };
    await expectAllBlocked(gateway, mxc);
  });

  it("is told as blocked only to those who may read it", async () => {
    await using gateway = await startHarness();
    const mxc = gateway.put(SMALL, { readers: [TOKEN] });
    gateway.homeserver.addToken("bob");
    await gateway.get(`scan/${mxc}`, TOKEN);
    gateway.overrides.set("block", SMALL);
    for (const path of [`scan/${mxc}`, `download/${mxc}`]) {
      const answer = await gateway.get(path, "bob");
      expect([answer.status, answer.json["clean"]]).toEqual([502, undefined]);
    }
  });

  it("is refused as encrypted media too, by its plaintext, with and without its bytes", async () => {
    for (const bytes of [SMALL, LARGE]) {
      await using gateway = await startHarness();
      const files = await Promise.all([encryptFile(bytes), encryptFile(bytes)]);
      const [known, unknown] = files.map((file) => ({ file: file.file(gateway.put(file.ciphertext)) }));
      expect((await gateway.post("scan_encrypted", known, TOKEN)).json["clean"]).toBe(true);
      gateway.overrides.set("block", bytes);
      for (const body of [known, unknown]) {
        expectBlockedVerdict(await gateway.post("scan_encrypted", body, TOKEN));
        expectBlocked(await gateway.post("download_encrypted", body, TOKEN));
      }
    }
  });

  it("while it is scanned, is refused to all who wait", async () => {
    for (const bytes of [SMALL, LARGE]) {
      await using gateway = await startHarness();
      const release = Promise.withResolvers<void>();
      gateway.scanner.hold = release.promise;
      const mxc = gateway.put(bytes);
      const downloads = [1, 2, 3].map(() => gateway.get(`download/${mxc}`, TOKEN));
      const scans = [1, 2, 3].map(() => gateway.get(`scan/${mxc}`, TOKEN));
      await expect.poll(() => gateway.scanner.begun).toBe(1);
      gateway.overrides.set("block", bytes);
      release.resolve();
      for (const answer of await Promise.all(downloads)) expectBlocked(answer);
      for (const answer of await Promise.all(scans)) expectBlockedVerdict(answer);
    }
  });

  it("while it is downloaded again, is refused before its first byte leaves, or cut off before the next piece", async () => {
    for (const streams of [16, 0]) {
      for (const [bytes, path] of [
        [LARGE, "download"],
        [LARGE.subarray(0, 900_000), "download"],
        [LARGE.subarray(0, 900_000), "scan"],
      ] as const) {
        await using gateway = await startHarness({ pipeline: { streams } });
        const mxc = gateway.put(bytes);
        await gateway.get(`scan/${mxc}`, TOKEN);
        gateway.homeserver.behaviour = { drip: { bytes: 20_000, pause: 30 } };
        const asked = gateway.homeserver.requests.length;
        const answer = gateway.get(`${path}/${mxc}`, TOKEN);
        await expect.poll(() => gateway.homeserver.requests.length).toBe(asked + 1);
        gateway.overrides.set("block", bytes);
        if (path === "download") expectBlocked(await answer);
        else expectBlockedVerdict(await answer);
      }
    }
  });

  it("is cut off in the middle, where part of it is out already", async () => {
    await using gateway = await startHarness();
    const mxc = gateway.put(LARGE);
    await gateway.get(`scan/${mxc}`, TOKEN);
    gateway.homeserver.behaviour = { stallAfter: 3 << 20 };
    const response = await fetch(`${gateway.url}/_matrix/media_proxy/unstable/download/${mxc}`, {
      headers: { authorization: `Bearer ${TOKEN}` },
    });
    const reader = response.body?.getReader();
    expect((await reader?.read())?.done).toBe(false);
    gateway.overrides.set("block", LARGE);
    gateway.homeserver.behaviour = {};
    await expect(
      (async () => {
        while ((await reader?.read())?.done !== true);
      })(),
    ).rejects.toThrow();
    expect(gateway.reports.at(-1)?.sent).toBeLessThanOrEqual(4 << 20);
    expectBlocked(await gateway.get(`download/${mxc}`, TOKEN));
  });

  it("is not handed on as what a scanner made of it either", async () => {
    await using gateway = await startHarness({ policy: { onModified: "deliver" } });
    gateway.scanner.replaces = (media) => (media.equals(SMALL) ? Buffer.from("smaller") : undefined);
    gateway.overrides.set("block", SMALL);
    await expectAllBlocked(gateway, gateway.put(SMALL));
  });
});

describe("content that an operator allowed", () => {
  it("passes whatever scanners say, now, before or not at all, and no longer than that", async () => {
    for (const bytes of [EICAR, Buffer.concat([LARGE, EICAR])]) {
      await using gateway = await startHarness();
      const [known, unknown] = [gateway.put(bytes), gateway.put(bytes)];
      expect((await gateway.get(`download/${known}`, TOKEN)).status).toBe(403);
      gateway.overrides.set("allow", bytes);
      for (const failure of [undefined, UNAVAILABLE, new GatewayError("beyond_proof")]) {
        gateway.scanner.failure = failure;
        for (const mxc of [known, unknown, known]) {
          expect((await gateway.get(`download/${mxc}`, TOKEN)).body.equals(bytes)).toBe(true);
          expect((await gateway.get(`scan/${mxc}`, TOKEN)).json["clean"]).toBe(true);
        }
      }
      // Signatures that changed make no difference to it.
      gateway.scanner.tag = "signatures-2";
      expect((await gateway.get(`download/${known}`, TOKEN)).body.equals(bytes)).toBe(true);
      gateway.scanner.failure = undefined;
      gateway.overrides.lift(bytes);
      for (const mxc of [known, unknown]) expect((await gateway.get(`download/${mxc}`, TOKEN)).status).toBe(403);
      await expect.poll(() => gateway.spooled()).toMatchObject({ memory: 0, disk: 0 });
    }
  });

  it("passes unscanned as encrypted media too", async () => {
    await using gateway = await startHarness();
    gateway.scanner.failure = UNAVAILABLE;
    const file = await encryptFile(EICAR);
    const body = { file: file.file(gateway.put(file.ciphertext)) };
    gateway.overrides.set("allow", EICAR);
    expect((await gateway.post("download_encrypted", body, TOKEN)).body.equals(file.ciphertext)).toBe(true);
    expect((await gateway.post("scan_encrypted", body, TOKEN)).json["clean"]).toBe(true);
  });

  it("is those very bytes: others in their stead are scanned", async () => {
    await using gateway = await startHarness();
    const infected = Buffer.concat([EICAR, LARGE]);
    const mxc = gateway.put(infected);
    await gateway.get(`scan/${mxc}`, TOKEN);
    gateway.overrides.set("allow", infected);
    const [serverName, mediaId = ""] = mxc.split("/");
    gateway.homeserver.put(mediaId, { bytes: Buffer.concat([EICAR, LARGE.toReversed()]) }, serverName);
    expect((await gateway.get(`download/${mxc}`, TOKEN)).status).toBe(403);
  });

  it("is still kept out by the lists of types and by max_file_size, and by a homeserver that refuses it", async () => {
    await using gateway = await startHarness({ policy: { blockedTypes: ["text/plain"] }, pipeline: { maxFileSize: 1000 } });
    const text = Buffer.from("just some text\n");
    const [known, unknown, huge] = [gateway.put(text), gateway.put(text), gateway.put(Buffer.alloc(1001))];
    expect((await gateway.get(`scan/${known}`, TOKEN)).json["reason"]).toBe("MCS_MIME_TYPE_FORBIDDEN");
    gateway.overrides.set("allow", text);
    gateway.overrides.set("allow", Buffer.alloc(1001));
    for (const mxc of [known, unknown])
      expect((await gateway.get(`download/${mxc}`, TOKEN)).json["reason"]).toBe("MCS_MIME_TYPE_FORBIDDEN");
    expect((await gateway.get(`scan/${huge}`, TOKEN)).json["clean"]).toBe(false);
    expect((await gateway.get(`download/${known}`, "mallory")).status).toBe(401);
  });

  it("is blocked all the same once it is blocked", async () => {
    await using gateway = await startHarness();
    const mxc = gateway.put(EICAR);
    gateway.overrides.set("allow", EICAR);
    expect((await gateway.get(`download/${mxc}`, TOKEN)).status).toBe(200);
    gateway.overrides.set("block", EICAR);
    await expectAllBlocked(gateway, mxc);
  });
});

describe("media whose scan fails while it still arrives", () => {
  it("is downloaded no further, unless it may turn out to be something that an operator allowed", async () => {
    await using gateway = await startHarness({ bodyIdle: 300 });
    gateway.scanner.impatient = true;
    gateway.scanner.failure = UNAVAILABLE;
    const mxc = gateway.put(LARGE);
    gateway.homeserver.behaviour = { stallAfter: 3 << 20 };
    expect((await gateway.get(`download/${mxc}`, TOKEN)).status).toBe(503);
    gateway.overrides.set("allow", SMALL);
    // It waits for the rest, which never comes.
    expect((await gateway.get(`download/${mxc}`, TOKEN)).status).toBe(502);
  });
});

describe("verdicts that an operator wants forgotten", () => {
  it("are made anew, once, from whatever source, and others are left alone", async () => {
    await using gateway = await startHarness();
    const [one, two, other] = [gateway.put(SMALL), gateway.put(SMALL), gateway.put(LARGE)];
    for (const mxc of [one, two, other]) await gateway.get(`scan/${mxc}`, TOKEN);
    expect(gateway.scanner.scanned.length).toBe(2);
    gateway.overrides.forget(SMALL);
    await expect.poll(() => Date.now()).toBeGreaterThan(gateway.overrides.lastForgotten);
    for (const mxc of [one, two, other, one]) await gateway.get(`scan/${mxc}`, TOKEN);
    expect(gateway.scanner.scanned.length).toBe(3);
  });
});

describe("content that was clean and is now found infected", () => {
  it("is told of, once, small or large, and not when nothing was known of it", async () => {
    for (const bytes of [SMALL, LARGE]) {
      await using gateway = await startHarness();
      const [mxc, elsewhere] = [gateway.put(bytes), gateway.put(bytes)];
      await gateway.get(`scan/${mxc}`, TOKEN);
      await gateway.get(`scan/${gateway.put(EICAR)}`, TOKEN);
      expect(gateway.turned).toEqual([]);
      gateway.scanner.tag = "signatures-2";
      gateway.scanner.finds = bytes;
      for (const again of [mxc, mxc, elsewhere]) expect((await gateway.get(`scan/${again}`, TOKEN)).json["clean"]).toBe(false);
      expect(gateway.turned).toEqual([{ threat: "Eicar" }]);
    }
  });
});
