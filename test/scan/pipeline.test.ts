import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { GatewayError } from "../../src/errors.ts";
import { encryptFile } from "../support/encrypted-file.ts";
import { EICAR } from "../../src/scan/canary-samples.ts";
import { FakeScanner } from "../support/fake-scanner.ts";
import { type Harness, startHarness, TOKEN } from "../support/harness.ts";

const LARGE = randomBytes(5 * (1 << 20) + 4321);
const SMALL = Buffer.from("small");
const UNAVAILABLE = new GatewayError("scanner_unavailable", { detail: "told to fail" });

/** What was held goes when the last byte is out, which the client may see first. */
async function expectNothingSpooled(gateway: Harness): Promise<void> {
  await expect.poll(() => gateway.spooled()).toMatchObject({ memory: 0, disk: 0 });
}

describe("one scan for all", () => {
  it("20 at once for one media: one download before the verdict, one scan, and everyone gets the bytes", async () => {
    for (const bytes of [SMALL, LARGE]) {
      await using gateway = await startHarness();
      const release = Promise.withResolvers<void>();
      gateway.scanner.hold = release.promise;
      const mxc = gateway.put(bytes);
      const answers = Array.from({ length: 20 }, () => gateway.get(`download/${mxc}`, TOKEN));
      await expect.poll(() => gateway.scanner.begun).toBe(1);
      expect(gateway.homeserver.requests).toHaveLength(1);
      release.resolve();
      for (const answer of await Promise.all(answers)) expect(answer.body.equals(bytes)).toBe(true);
      expect(gateway.scanner.scanned).toHaveLength(1);
      await expectNothingSpooled(gateway);
    }
  });

  it("the same content is scanned once, wherever it lies and however it is encrypted", async () => {
    await using gateway = await startHarness();
    const first = await encryptFile(SMALL);
    const second = await encryptFile(SMALL);
    await gateway.get(`download/${gateway.put(SMALL)}`, TOKEN);
    await gateway.get(`download/${gateway.put(SMALL)}`, TOKEN);
    await gateway.post("scan_encrypted", { file: first.file(gateway.put(first.ciphertext)) }, TOKEN);
    await gateway.post("scan_encrypted", { file: second.file(gateway.put(second.ciphertext)) }, TOKEN);
    expect(gateway.scanner.scanned).toEqual([SMALL]);
  });

  it("verdicts made under signatures that have changed since are made anew", async () => {
    await using gateway = await startHarness();
    const mxc = gateway.put(LARGE);
    await gateway.get(`scan/${mxc}`, TOKEN);
    gateway.scanner.tag = "signatures-2";
    await gateway.get(`scan/${mxc}`, TOKEN);
    await gateway.get(`scan/${mxc}`, TOKEN);
    expect(gateway.scanner.scanned).toHaveLength(2);
  });

  it("a scan goes on when its client hangs up, and its verdict serves the next", async () => {
    await using gateway = await startHarness();
    const release = Promise.withResolvers<void>();
    gateway.scanner.hold = release.promise;
    const mxc = gateway.put(LARGE);
    const leaving = new AbortController();
    const left = gateway.get(`download/${mxc}`, TOKEN, { signal: leaving.signal });
    await expect.poll(() => gateway.scanner.begun).toBe(1);
    leaving.abort();
    await expect(left).rejects.toThrow();
    await expect.poll(() => gateway.reports.length).toBe(1);
    release.resolve();
    await expect.poll(() => gateway.scanner.scanned.length).toBe(1);
    expect((await gateway.get(`download/${mxc}`, TOKEN)).body.equals(LARGE)).toBe(true);
    expect(gateway.scanner.begun).toBe(1);
    await expectNothingSpooled(gateway);
  });

  it("a scan goes on when its client's wait is over: 503 with Retry-After, then the verdict", async () => {
    await using gateway = await startHarness({ pipeline: { wait: 100 } });
    const release = Promise.withResolvers<void>();
    gateway.scanner.hold = release.promise;
    const mxc = gateway.put(SMALL);
    const early = await gateway.get(`scan/${mxc}`, TOKEN);
    expect([early.status, early.json["reason"]]).toEqual([503, "M_UNKNOWN"]);
    expect(Number(early.headers.get("retry-after"))).toBeGreaterThan(0);
    release.resolve();
    await expect.poll(async () => (await gateway.get(`scan/${mxc}`, TOKEN)).json["clean"]).toBe(true);
    expect(gateway.scanner.scanned).toHaveLength(1);
  });
});

describe("fail closed", () => {
  it("a scan that could not be made is 503 with Retry-After, is not remembered, and never clean: false", async () => {
    for (const bytes of [SMALL, LARGE]) {
      await using gateway = await startHarness();
      gateway.scanner.failure = UNAVAILABLE;
      const mxc = gateway.put(bytes);
      for (const path of [`download/${mxc}`, `scan/${mxc}`]) {
        const answer = await gateway.get(path, TOKEN);
        expect([answer.status, answer.json["reason"], answer.json["clean"]]).toEqual([503, "M_UNKNOWN", undefined]);
        expect(answer.headers.has("retry-after")).toBe(true);
      }
      gateway.scanner.failure = undefined;
      expect((await gateway.get(`download/${mxc}`, TOKEN)).body.equals(bytes)).toBe(true);
      await expectNothingSpooled(gateway);
    }
  });

  it("an error that nobody thought of is 500 without its text, and nothing gets out", async () => {
    await using gateway = await startHarness();
    gateway.scanner.failure = new Error("secret detail");
    const answer = await gateway.get(`download/${gateway.put(LARGE)}`, TOKEN);
    expect([answer.status, answer.body.toString()]).toEqual([500, '{"reason":"M_UNKNOWN","info":"Internal error"}']);
  });

  it("on_unavailable: allow lets media through while nobody can scan it, and remembers nothing", async () => {
    await using gateway = await startHarness({ policy: { onUnavailable: "allow" } });
    gateway.scanner.failure = UNAVAILABLE;
    for (const bytes of [SMALL, LARGE]) {
      expect((await gateway.get(`download/${gateway.put(bytes)}`, TOKEN)).body.equals(bytes)).toBe(true);
    }
    const mxc = gateway.put(EICAR);
    expect((await gateway.get(`scan/${mxc}`, TOKEN)).json["clean"]).toBe(true);
    gateway.scanner.failure = undefined;
    expect((await gateway.get(`scan/${mxc}`, TOKEN)).json["clean"]).toBe(false);
  });

  it("what can't be scanned is blocked, or passes if the operator says so", async () => {
    await using blocking = await startHarness();
    blocking.scanner.unscannable = "encrypted archive";
    const mxc = blocking.put(SMALL);
    expect((await blocking.get(`download/${mxc}`, TOKEN)).json["reason"]).toBe("MCS_MEDIA_NOT_CLEAN");
    expect((await blocking.get(`scan/${mxc}`, TOKEN)).json["clean"]).toBe(false);
    await using allowing = await startHarness({ policy: { onUnscannable: "allow" } });
    allowing.scanner.unscannable = "encrypted archive";
    expect((await allowing.get(`scan/${allowing.put(SMALL)}`, TOKEN)).json["clean"]).toBe(true);
  });

  it("media that a scanner replaced is blocked, whatever the operator lets pass, and is not remembered", async () => {
    await using gateway = await startHarness({ policy: { onUnavailable: "allow", onUnscannable: "allow" } });
    gateway.scanner.modified = "a block page";
    const mxc = gateway.put(SMALL);
    expect((await gateway.get(`download/${mxc}`, TOKEN)).json["reason"]).toBe("MCS_MEDIA_NOT_CLEAN");
    expect((await gateway.get(`scan/${mxc}`, TOKEN)).json["clean"]).toBe(false);
    gateway.scanner.modified = undefined;
    expect((await gateway.get(`scan/${mxc}`, TOKEN)).json["clean"]).toBe(true);
  });

  it("what one scanner refuses is blocked although another can't be asked and the operator lets that pass", async () => {
    for (const refusal of ["unscannable", "modified"] as const) {
      const scanners = [new FakeScanner("first"), new FakeScanner("second")] as const;
      await using gateway = await startHarness({ scanners, policy: { onUnavailable: "allow" } });
      scanners[0].failure = UNAVAILABLE;
      scanners[1][refusal] = "for a reason";
      expect((await gateway.get(`download/${gateway.put(SMALL)}`, TOKEN)).status, refusal).toBe(403);
    }
  });

  it("on_unavailable: allow is about scanners, not about bugs", async () => {
    const scanners = [new FakeScanner("first"), new FakeScanner("second")] as const;
    await using gateway = await startHarness({ scanners, policy: { onUnavailable: "allow" } });
    scanners[0].failure = UNAVAILABLE;
    scanners[1].failure = new Error("a bug");
    expect((await gateway.get(`download/${gateway.put(SMALL)}`, TOKEN)).status).toBe(500);
  });

  it("one of two scanners is enough to block, and both are needed to pass", async () => {
    const scanners = [new FakeScanner("first"), new FakeScanner("second")] as const;
    await using gateway = await startHarness({ scanners });
    expect((await gateway.get(`scan/${gateway.put(SMALL)}`, TOKEN)).json["clean"]).toBe(true);
    scanners[1].failure = UNAVAILABLE;
    expect((await gateway.get(`scan/${gateway.put(randomBytes(10))}`, TOKEN)).status).toBe(503);
    expect((await gateway.get(`scan/${gateway.put(EICAR)}`, TOKEN)).json["clean"]).toBe(false);
  });
});

describe("several scanners", () => {
  it("a slow one holds nobody else's reading back, and the request no longer than scan.timeout", async () => {
    for (const bytes of [SMALL, LARGE]) {
      const [quick, slow] = [new FakeScanner("quick"), new FakeScanner("slow")];
      slow.slow = new Promise(() => undefined);
      await using gateway = await startHarness({ scanners: [slow, quick], pipeline: { timeout: 1500 } });
      const answer = gateway.get(`download/${gateway.put(bytes)}`, TOKEN);
      await expect.poll(() => quick.scanned.length).toBe(1);
      expect(quick.scanned[0]?.equals(bytes)).toBe(true);
      expect((await answer).status).toBe(503);
      expect(slow.cancelled).toBe(1);
      await expectNothingSpooled(gateway);
    }
  });

  it("one that says infected is not kept waiting for a slow one, which is cancelled", async () => {
    const [quick, slow] = [new FakeScanner("quick"), new FakeScanner("slow")];
    slow.slow = new Promise(() => undefined);
    await using gateway = await startHarness({ scanners: [slow, quick] });
    expect((await gateway.get(`download/${gateway.put(Buffer.concat([LARGE, EICAR]))}`, TOKEN)).status).toBe(403);
    expect(slow.cancelled).toBe(1);
    await expectNothingSpooled(gateway);
  });

  it("they read the media at the same time, from one download", async () => {
    const scanners = [new FakeScanner("first"), new FakeScanner("second"), new FakeScanner("third")];
    const release = Promise.withResolvers<void>();
    for (const scanner of scanners) scanner.hold = release.promise;
    await using gateway = await startHarness({ scanners });
    const answer = gateway.get(`download/${gateway.put(LARGE)}`, TOKEN);
    await expect.poll(() => scanners.map(({ begun }) => begun)).toEqual([1, 1, 1]);
    release.resolve();
    expect((await answer).body.equals(LARGE)).toBe(true);
    expect(gateway.homeserver.requests).toHaveLength(1);
  });
});

describe("media beyond what a scanner is proven to scan", () => {
  it("is 503 whatever the operator lets pass, for all who ask at once, and is not remembered", async () => {
    for (const bytes of [SMALL, LARGE]) {
      const [proven, unproven] = [new FakeScanner("proven"), new FakeScanner("unproven")];
      await using gateway = await startHarness({
        scanners: [proven, unproven],
        policy: { onUnavailable: "allow", onUnscannable: "allow" },
      });
      unproven.failure = new GatewayError("beyond_proof");
      proven.failure = UNAVAILABLE;
      const mxc = gateway.put(bytes);
      const paths = [`download/${mxc}`, `scan/${mxc}`, `scan/${mxc}`];
      for (const answer of await Promise.all(paths.map((path) => gateway.get(path, TOKEN)))) {
        expect([answer.status, answer.json["reason"], answer.json["clean"]]).toEqual([503, "M_UNKNOWN", undefined]);
        expect(answer.headers.has("retry-after")).toBe(true);
      }
      proven.failure = undefined;
      expect((await gateway.get(`scan/${mxc}`, TOKEN)).status).toBe(503);
      unproven.failure = undefined;
      expect((await gateway.get(`scan/${mxc}`, TOKEN)).json["clean"]).toBe(true);
      await expectNothingSpooled(gateway);
    }
  });

  it("is infected all the same when another scanner says so", async () => {
    const [proven, unproven] = [new FakeScanner("proven"), new FakeScanner("unproven")];
    unproven.failure = new GatewayError("beyond_proof");
    await using gateway = await startHarness({ scanners: [unproven, proven] });
    const mxc = gateway.put(EICAR);
    for (let round = 0; round < 2; round += 1) expect((await gateway.get(`scan/${mxc}`, TOKEN)).json["clean"]).toBe(false);
    expect(proven.scanned).toHaveLength(1);
  });
});

describe("a homeserver that misbehaves", () => {
  it("its errors are never taken for media", async () => {
    await using gateway = await startHarness();
    const mxc = gateway.put(SMALL);
    const cases = [
      [404, { errcode: "M_NOT_FOUND", error: "x" }, 404, "M_NOT_FOUND"],
      [400, { errcode: "M_UNRECOGNIZED", error: "x" }, 404, "M_NOT_FOUND"],
      [500, { errcode: "M_UNKNOWN", error: "x" }, 502, "MCS_MEDIA_REQUEST_FAILED"],
      [503, "down", 502, "MCS_MEDIA_REQUEST_FAILED"],
      [206, "part", 502, "MCS_MEDIA_REQUEST_FAILED"],
      [504, { errcode: "M_NOT_YET_UPLOADED", error: "x" }, 504, "M_UNKNOWN"],
    ] as const;
    for (const [status, body, expected, reason] of cases) {
      gateway.homeserver.behaviour = { answer: { status, body } };
      for (const route of ["download", "scan"]) {
        const answer = await gateway.get(`${route}/${mxc}`, TOKEN);
        expect([answer.status, answer.json["reason"], answer.json["errcode"]], `${route} ${status}`).toEqual([expected, reason, undefined]);
      }
    }
    gateway.homeserver.behaviour = {
      answer: { status: 429, body: { errcode: "M_LIMIT_EXCEEDED", error: "x" }, headers: { "retry-after": "7" } },
    };
    const limited = await gateway.get(`download/${mxc}`, TOKEN);
    expect([limited.status, limited.json["errcode"], limited.headers.get("retry-after")]).toEqual([429, "M_LIMIT_EXCEEDED", "7"]);
    gateway.homeserver.behaviour = {};
    expect((await gateway.get(`download/${mxc}`, TOKEN)).status).toBe(200);
  });

  it("media cut short is 502, hangs nobody, leaves nothing, and works when asked again", async () => {
    for (const bytes of [SMALL, LARGE]) {
      await using gateway = await startHarness();
      const mxc = gateway.put(bytes);
      gateway.homeserver.behaviour = { cutAfter: Math.floor(bytes.length / 2) };
      const answers = await Promise.all([1, 2].map(() => gateway.get(`download/${mxc}`, TOKEN)));
      for (const answer of answers) expect([answer.status, answer.json["reason"]]).toEqual([502, "MCS_MEDIA_REQUEST_FAILED"]);
      await expectNothingSpooled(gateway);
      gateway.homeserver.behaviour = {};
      expect((await gateway.get(`download/${mxc}`, TOKEN)).body.equals(bytes)).toBe(true);
      gateway.homeserver.behaviour = { cutAfter: Math.floor(bytes.length / 2) };
      const known = gateway.get(`download/${mxc}`, TOKEN);
      // What is large is on its way by then: the connection breaks.
      if (bytes === LARGE) await expect(known).rejects.toThrow();
      else expect((await known).status).toBe(502);
    }
  });

  it("media that stalls is 502 after the idle limit", async () => {
    await using gateway = await startHarness({ bodyIdle: 200 });
    const mxc = gateway.put(LARGE, { behaviour: { stallAfter: 2 << 20 } });
    expect((await gateway.get(`download/${mxc}`, TOKEN)).status).toBe(502);
    await expectNothingSpooled(gateway);
  });

  it("changed bytes are scanned before they get out, at whatever size", async () => {
    for (const size of [100, 1 << 20, (1 << 20) + 1, 3 << 20]) {
      await using gateway = await startHarness();
      const clean = randomBytes(size);
      const infected = Buffer.from(clean);
      EICAR.copy(infected, 10);
      const mxc = gateway.put(clean);
      const [serverName, mediaId = ""] = mxc.split("/");
      expect((await gateway.get(`download/${mxc}`, TOKEN)).status).toBe(200);
      gateway.homeserver.put(mediaId, { bytes: infected }, serverName);
      const download = await gateway.get(`download/${mxc}`, TOKEN);
      expect([download.status, download.json["reason"]], String(size)).toEqual([403, "MCS_MEDIA_NOT_CLEAN"]);
      expect((await gateway.get(`scan/${mxc}`, TOKEN)).json["clean"]).toBe(false);
    }
  });

  it("bytes that change behind the first piece break the connection before one of them is out", async () => {
    await using gateway = await startHarness();
    const changed = Buffer.from(LARGE);
    EICAR.copy(changed, 2 * (1 << 20) + 5);
    const mxc = gateway.put(LARGE);
    const [serverName, mediaId = ""] = mxc.split("/");
    await gateway.get(`download/${mxc}`, TOKEN);
    gateway.homeserver.put(mediaId, { bytes: changed }, serverName);
    await expect(gateway.get(`download/${mxc}`, TOKEN)).rejects.toThrow();
    expect(gateway.reports.at(-1)?.sent).toBeLessThanOrEqual(2 << 20);
    const again = await gateway.get(`download/${mxc}`, TOKEN);
    expect(again.json["reason"]).toBe("MCS_MEDIA_NOT_CLEAN");
  });

  it("chunked and compressed media arrive whole, with one length and no encoding", async () => {
    await using gateway = await startHarness();
    for (const behaviour of [{ chunked: true }, { contentEncoding: "gzip" }, { contentEncoding: "br" }] as const) {
      for (const bytes of [SMALL, LARGE]) {
        const answer = await gateway.get(`download/${gateway.put(bytes, { behaviour })}`, TOKEN);
        expect(answer.body.equals(bytes)).toBe(true);
        expect(answer.headers.get("content-length")).toBe(String(bytes.length));
        expect(answer.headers.has("content-encoding") || answer.headers.has("transfer-encoding")).toBe(false);
      }
    }
    const hidden = gateway.put(EICAR, { behaviour: { contentEncoding: "gzip" } });
    expect((await gateway.get(`download/${hidden}`, TOKEN)).status).toBe(403);
  });
});

describe("limits", () => {
  it("media above max_file_size is refused by its length, and by count", async () => {
    await using gateway = await startHarness({ pipeline: { maxFileSize: 1000 } });
    for (const behaviour of [{}, { chunked: true }, { contentEncoding: "gzip" }, { contentEncoding: "br" }] as const) {
      const mxc = gateway.put(Buffer.alloc(1001), { behaviour });
      const answer = await gateway.get(`download/${mxc}`, TOKEN);
      expect(answer.json, JSON.stringify(behaviour)).toEqual({
        reason: "MCS_MEDIA_NOT_CLEAN",
        info: "The media is too large to be scanned",
      });
      const scan = await gateway.get(`scan/${mxc}`, TOKEN);
      expect([scan.status, scan.json]).toEqual([200, { clean: false, info: "The media is too large to be scanned" }]);
    }
    expect((await gateway.get(`download/${gateway.put(Buffer.alloc(1000))}`, TOKEN)).status).toBe(200);
  });

  it("a full queue is 429 in the standard form", async () => {
    await using gateway = await startHarness({ admission: { maxConcurrent: 1, maxQueued: 1 } });
    const release = Promise.withResolvers<void>();
    gateway.scanner.hold = release.promise;
    const first = gateway.get(`download/${gateway.put(randomBytes(10))}`, TOKEN);
    await expect.poll(() => gateway.scanner.begun).toBe(1);
    const second = gateway.get(`download/${gateway.put(randomBytes(10))}`, TOKEN);
    const refused = await gateway.get(`download/${gateway.put(randomBytes(10))}`, "bob");
    expect([refused.status, Object.keys(refused.json).toSorted()]).toEqual([429, ["errcode", "error", "retry_after_ms"]]);
    expect(refused.headers.has("retry-after")).toBe(true);
    release.resolve();
    expect((await Promise.all([first, second])).map(({ status }) => status)).toEqual([200, 200]);
  });

  it("a client has its share, scans that it left behind included, and takes nobody else's", async () => {
    await using gateway = await startHarness({ admission: { maxPerClient: 2 } });
    gateway.homeserver.addToken("bob");
    for (const token of [TOKEN, "bob"]) await gateway.get(`download/${gateway.put(randomBytes(10))}`, token);
    const release = Promise.withResolvers<void>();
    gateway.scanner.hold = release.promise;
    const leaving = new AbortController();
    const left = gateway.get(`download/${gateway.put(randomBytes(10))}`, TOKEN, { signal: leaving.signal });
    const stayed = gateway.get(`download/${gateway.put(randomBytes(10))}`, TOKEN);
    await expect.poll(() => gateway.scanner.begun).toBe(4);
    leaving.abort();
    await expect(left).rejects.toThrow();
    expect((await gateway.get(`download/${gateway.put(randomBytes(10))}`, TOKEN)).status).toBe(429);
    const bob = gateway.get(`download/${gateway.put(randomBytes(10))}`, "bob");
    await expect.poll(() => gateway.scanner.begun).toBe(5);
    release.resolve();
    expect((await Promise.all([stayed, bob])).map(({ status }) => status)).toEqual([200, 200]);
    await expect.poll(async () => (await gateway.get(`download/${gateway.put(randomBytes(10))}`, TOKEN)).status).toBe(200);
  });

  it("made-up tokens are no clients of their own: together they have the shares of their address", async () => {
    await using gateway = await startHarness({ admission: { maxPerClient: 1 } });
    await gateway.get(`download/${gateway.put(randomBytes(10))}`, TOKEN);
    const stalled = gateway.put(randomBytes(10), { behaviour: { stall: "headers" } });
    gateway.homeserver.behaviour = { stall: "headers" };
    const leaving = new AbortController();
    const madeUp = Array.from({ length: 4 }, (_, index) =>
      gateway.get(`download/${stalled}`, `made-up-${index}`, { signal: leaving.signal }),
    );
    await expect.poll(() => gateway.homeserver.requests.length).toBeGreaterThan(1);
    await expect.poll(async () => (await gateway.get("scan/a/b", "made-up-5")).status).toBe(429);
    gateway.homeserver.behaviour = {};
    expect((await gateway.get(`download/${gateway.put(randomBytes(10))}`, TOKEN)).status).toBe(200);
    leaving.abort();
    await Promise.allSettled(madeUp);
  });

  it("scan.timeout is for download and scan, not for the queue before them", async () => {
    await using gateway = await startHarness({ admission: { maxConcurrent: 1 }, pipeline: { timeout: 1500 } });
    const slow = { behaviour: { drip: { bytes: 10, pause: 100 } } };
    const answers = await Promise.all([1, 2].map(() => gateway.get(`download/${gateway.put(randomBytes(100), slow)}`, TOKEN)));
    expect(answers.map(({ status }) => status)).toEqual([200, 200]);
  });

  it("known media may take longer than the wait: nothing of it is kept for a second try", async () => {
    await using gateway = await startHarness({ pipeline: { wait: 300, timeout: 60_000 } });
    for (const bytes of [randomBytes(900_000), LARGE]) {
      const mxc = gateway.put(bytes);
      await expect.poll(async () => (await gateway.get(`scan/${mxc}`, TOKEN)).status, { timeout: 10_000 }).toBe(200);
      gateway.homeserver.behaviour = { drip: { bytes: bytes.length / 10, pause: 60 } };
      expect((await gateway.get(`scan/${mxc}`, TOKEN)).json["clean"]).toBe(true);
      expect((await gateway.get(`download/${mxc}`, TOKEN)).body.equals(bytes)).toBe(true);
      gateway.homeserver.behaviour = {};
    }
    expect(gateway.scanner.begun).toBe(2);
  });

  it("large media is scanned while it arrives, by so many scanners as may be kept waiting for it", async () => {
    for (const live of [1, 0]) {
      await using gateway = await startHarness({ pipeline: { liveScans: () => ({ download: live, upload: live }) } });
      const drip = { behaviour: { drip: { bytes: 1 << 20, pause: 50 } } };
      const answers = [LARGE, randomBytes(4 << 20)].map((bytes) => gateway.get(`scan/${gateway.put(bytes, drip)}`, TOKEN));
      await expect.poll(() => gateway.homeserver.requests.length).toBe(2);
      await expect.poll(() => gateway.spooled().memory).toBeGreaterThan(0);
      expect(gateway.scanner.begun).toBe(live);
      for (const answer of await Promise.all(answers)) expect(answer.json["clean"]).toBe(true);
    }
  });

  it("known media for which no stream is free passes through the spool, checked before its first byte leaves", async () => {
    await using gateway = await startHarness({ pipeline: { streams: 0 } });
    const changed = Buffer.from(LARGE);
    EICAR.copy(changed, 2 * (1 << 20) + 5);
    const mxc = gateway.put(LARGE);
    const [serverName, mediaId = ""] = mxc.split("/");
    for (let round = 0; round < 2; round += 1) expect((await gateway.get(`download/${mxc}`, TOKEN)).body.equals(LARGE)).toBe(true);
    gateway.homeserver.put(mediaId, { bytes: changed }, serverName);
    expect((await gateway.get(`download/${mxc}`, TOKEN)).json["reason"]).toBe("MCS_MEDIA_NOT_CLEAN");
    await expectNothingSpooled(gateway);
  });

  it("a client that leaves while its media is made ready leaves nothing held", async () => {
    await using gateway = await startHarness({ admission: { maxPerClient: 12 }, pipeline: { streams: 0 } });
    const mxc = gateway.put(LARGE);
    await gateway.get(`scan/${mxc}`, TOKEN);
    gateway.homeserver.behaviour = { drip: { bytes: LARGE.length / 20, pause: 10 } };
    const delays = Array.from({ length: 12 }, (_, index) => 120 + 15 * index);
    await Promise.allSettled(delays.map((delay) => gateway.get(`download/${mxc}`, TOKEN, { signal: AbortSignal.timeout(delay) })));
    gateway.homeserver.behaviour = {};
    await expectNothingSpooled(gateway);
    const all = await Promise.all(delays.map(() => gateway.get(`download/${mxc}`, TOKEN)));
    expect(new Set(all.map(({ status }) => status))).toEqual(new Set([200]));
  });

  it("type lists look at the decrypted bytes, never at what the uploader claims", async () => {
    const png = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==", "base64");
    await using gateway = await startHarness({ policy: { allowedTypes: ["image/png"] } });
    expect((await gateway.get(`download/${gateway.put(png, { contentType: "text/html" })}`, TOKEN)).status).toBe(200);
    const text = gateway.put(Buffer.from("just some text\n"), { contentType: "image/png" });
    for (const path of [`download/${text}`, `scan/${text}`]) {
      const answer = await gateway.get(path, TOKEN);
      expect([answer.status, answer.json["reason"]]).toEqual([403, "MCS_MIME_TYPE_FORBIDDEN"]);
    }
    const encrypted = await encryptFile(png);
    expect((await gateway.post("download_encrypted", { file: encrypted.file(gateway.put(encrypted.ciphertext)) }, TOKEN)).status).toBe(200);
  });
});
