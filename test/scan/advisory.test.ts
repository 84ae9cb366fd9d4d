import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { GatewayError } from "../../src/errors.ts";
import { EICAR } from "../../src/scan/canary-samples.ts";
import { encryptFile } from "../support/encrypted-file.ts";
import { FakeScanner } from "../support/fake-scanner.ts";
import { type Harness, type HarnessOptions, startHarness, TOKEN } from "../support/harness.ts";

const SMALL = Buffer.from("small");
const LARGE = randomBytes(3 * (1 << 20) + 17);
const NEVER = new Promise<never>(() => undefined);

async function withAdviser(options: HarnessOptions = {}): Promise<{ gateway: Harness; required: FakeScanner; adviser: FakeScanner }> {
  const required = new FakeScanner("required");
  const adviser = new FakeScanner("adviser", { required: false });
  return { gateway: await startHarness({ scanners: [adviser, required], ...options }), required, adviser };
}

async function expectNothingSpooled(gateway: Harness): Promise<void> {
  await expect.poll(() => gateway.spooled()).toMatchObject({ memory: 0, disk: 0 });
}

describe("an advisory scanner", () => {
  it("is asked about the same bytes and told of, and decides nothing, whatever it says", async () => {
    const cases = [
      ["clean", undefined, () => undefined],
      ["infected", "Eicar", () => undefined],
      ["modified", "for a reason", (adviser: FakeScanner) => (adviser.modified = "for a reason")],
      ["unscannable", "for a reason", (adviser: FakeScanner) => (adviser.unscannable = "for a reason")],
      ["failed", "internal", (adviser: FakeScanner) => (adviser.failure = new GatewayError("internal"))],
    ] as const;
    for (const [outcome, detail, arrange] of cases) {
      for (const bytes of [SMALL, LARGE]) {
        const { gateway: started, required, adviser } = await withAdviser();
        await using gateway = started;
        arrange(adviser);
        // Found by the adviser alone.
        if (outcome === "infected") adviser.finds = bytes.subarray(0, 5);
        const mxc = gateway.put(bytes);
        for (let round = 0; round < 2; round += 1) {
          expect((await gateway.get(`download/${mxc}`, TOKEN)).body.equals(bytes), outcome).toBe(true);
          expect((await gateway.get(`scan/${mxc}`, TOKEN)).json["clean"]).toBe(true);
        }
        await expect.poll(() => gateway.advice).toEqual([{ scanner: "adviser", outcome, detail }]);
        if (outcome !== "failed") expect(adviser.scanned.map((seen) => seen.equals(bytes))).toEqual([true]);
        expect(required.scanned).toHaveLength(1);
        await expectNothingSpooled(gateway);
      }
    }
  });

  it("sees encrypted media decrypted, and its type if it wants to know", async () => {
    const { gateway: started, adviser, required } = await withAdviser();
    await using gateway = started;
    adviser.needsType = true;
    const file = await encryptFile(Buffer.from("%PDF-1.4\n%\xe2\xe3\n1 0 obj\n", "latin1"));
    const body = { file: file.file(gateway.put(file.ciphertext)) };
    expect((await gateway.post("download_encrypted", body, TOKEN)).status).toBe(200);
    await expect.poll(() => adviser.offered).toEqual([{ mime: "application/pdf", place: false }]);
    expect(required.offered).toEqual([{ mime: undefined, place: false }]);
    await expectNothingSpooled(gateway);
  });

  it("lets nothing through that a required one refuses or could not scan, and is cancelled then", async () => {
    for (const bytes of [EICAR, Buffer.concat([LARGE, EICAR])]) {
      const { gateway: started, required, adviser } = await withAdviser();
      await using gateway = started;
      adviser.hold = NEVER;
      expect((await gateway.get(`download/${gateway.put(bytes)}`, TOKEN)).status).toBe(403);
      expect(adviser.cancelled).toBe(1);
      required.failure = new GatewayError("scanner_unavailable");
      expect((await gateway.get(`download/${gateway.put(SMALL)}`, TOKEN)).status).toBe(503);
      await expect.poll(() => adviser.cancelled).toBe(2);
      expect(gateway.advice).toEqual([]);
      await expectNothingSpooled(gateway);
    }
  });

  it("that is slow holds back no answer and takes nobody's turn; it may end later", async () => {
    const { gateway: started, adviser } = await withAdviser({ admission: { maxConcurrent: 1, maxQueued: 1 } });
    await using gateway = started;
    const release = Promise.withResolvers<void>();
    adviser.hold = release.promise;
    for (const bytes of [SMALL, LARGE, randomBytes(1000)]) {
      expect((await gateway.get(`download/${gateway.put(bytes)}`, TOKEN)).body.equals(bytes)).toBe(true);
    }
    const verdict = await gateway.get(`scan/${gateway.put(randomBytes(10))}`, TOKEN);
    expect(verdict.json["clean"]).toBe(true);
    expect(adviser.scanned).toEqual([]);
    release.resolve();
    await expect.poll(() => gateway.advice.length).toBe(4);
    expect(adviser.scanned.map(({ length }) => length).toSorted((a, b) => a - b)).toEqual([5, 10, 1000, LARGE.length]);
    await expectNothingSpooled(gateway);
  });

  it("has until scan.timeout, and is then given up", async () => {
    const { gateway: started, adviser } = await withAdviser({ pipeline: { timeout: 500 } });
    await using gateway = started;
    adviser.slow = NEVER;
    for (const bytes of [SMALL, LARGE]) expect((await gateway.get(`scan/${gateway.put(bytes)}`, TOKEN)).json["clean"]).toBe(true);
    await expect.poll(() => gateway.advice.map(({ outcome }) => outcome)).toEqual(["failed", "failed"]);
    await expectNothingSpooled(gateway);
  });

  it("has a bounded number of scans under way; what is above it is skipped, and told", async () => {
    const { gateway: started, adviser } = await withAdviser();
    await using gateway = started;
    adviser.capacity = 1;
    const release = Promise.withResolvers<void>();
    adviser.hold = release.promise;
    const scan = (): Promise<unknown> => gateway.get(`scan/${gateway.put(randomBytes(100))}`, TOKEN);
    for (let round = 0; round < 6; round += 1) await scan();
    expect(adviser.begun).toBe(4);
    expect(gateway.advice.map(({ outcome }) => outcome)).toEqual(["skipped", "skipped"]);
    release.resolve();
    await expectNothingSpooled(gateway);
    await scan();
    await expect
      .poll(() => gateway.advice.map(({ outcome }) => outcome))
      .toEqual(["skipped", "skipped", "clean", "clean", "clean", "clean", "clean"]);
  });

  it("gives way as soon as a request waits for the room that its media takes, be it new or known", async () => {
    const { gateway: started, adviser } = await withAdviser({ spool: { memory: 0, disk: 3 << 20 }, pipeline: { streams: 0 } });
    await using gateway = started;
    adviser.hold = NEVER;
    const [first, second] = [gateway.put(randomBytes(2 << 20)), gateway.put(randomBytes(2 << 20))];
    for (const mxc of [first, second, first]) expect((await gateway.get(`download/${mxc}`, TOKEN)).status).toBe(200);
    await expect.poll(() => gateway.advice.map(({ outcome }) => outcome)).toEqual(["skipped", "skipped"]);
    await expectNothingSpooled(gateway);
  });

  it("does not go on after its scan while a request waits for room already", async () => {
    const { gateway: started, required, adviser } = await withAdviser({ spool: { memory: 0, disk: 3 << 20 } });
    await using gateway = started;
    const release = Promise.withResolvers<void>();
    required.hold = release.promise;
    adviser.hold = NEVER;
    const answers = [1, 2].map(() => gateway.get(`download/${gateway.put(randomBytes(2 << 20))}`, TOKEN));
    await expect.poll(() => gateway.spooled()).toMatchObject({ waiting: 1 });
    await expect.poll(() => required.begun).toBe(1);
    release.resolve();
    expect((await Promise.all(answers)).map(({ status }) => status)).toEqual([200, 200]);
    expect(gateway.advice.map(({ outcome }) => outcome)).toEqual(["skipped"]);
  });

  it("is no part of what kept verdicts rest on", async () => {
    const { gateway: started, required, adviser } = await withAdviser();
    await using gateway = started;
    const mxc = gateway.put(SMALL);
    await gateway.get(`scan/${mxc}`, TOKEN);
    adviser.tag = "signatures-2";
    await gateway.get(`scan/${mxc}`, TOKEN);
    expect(required.scanned).toHaveLength(1);
  });

  it("alone is not enough to start with", async () => {
    await expect(startHarness({ scanners: [new FakeScanner("adviser", { required: false })] })).rejects.toThrow(TypeError);
  });
});
