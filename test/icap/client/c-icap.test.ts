import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { IcapService } from "../../../icap/index.ts";
import { type CIcap, startCIcap } from "../../support/peers/c-icap.ts";
import { scan } from "../support/scan.ts";

describe("c-icap's echo service", () => {
  let cicap: CIcap;
  beforeAll(async () => {
    cicap = await startCIcap({ clamd: { socket: "/nowhere/clamd.sock" } });
  });
  afterAll(() => cicap[Symbol.asyncDispose]());

  it.each([
    ["never", [0, 1, 1024, 1025, 65_536]],
    ["required", [0, 1, 1023, 1024]],
  ] as const)("gives back what was sent; preview %s", async (preview, sizes) => {
    await using service = new IcapService({ url: cicap.url("echo"), preview });
    for (const size of sizes) {
      const { verdict, isTag } = await scan(service, Buffer.alloc(size, "abc"));
      expect(verdict.outcome, `${size} bytes`).toBe("clean");
      expect(isTag).toBe("CI0001-XXXXXXXXX");
    }
  });

  it("gives back what was sent by REQMOD", async () => {
    await using service = new IcapService({ url: cicap.url("echo"), method: "REQMOD" });
    const outcomes: unknown[] = [];
    for (const size of [0, 1, 65_536]) outcomes.push((await scan(service, Buffer.alloc(size, "abc"))).verdict.outcome);
    expect(outcomes).toEqual(["clean", "clean", "clean"]);
  });

  it("closes a connection after its 100 requests, and nothing is lost over it", async () => {
    await using service = new IcapService({ url: cicap.url("echo"), maxConnections: 4, maxWaiting: 500 });
    const scans = Array.from({ length: 500 }, (_, at) => scan(service, `file ${at}`));
    const outcomes = (await Promise.all(scans)).map(({ verdict }) => verdict.outcome);
    expect(outcomes).toEqual(Array<string>(500).fill("clean"));
  });

  it("begins to echo a large body before it has all of it: no deadlock, and not clean", async () => {
    await using service = new IcapService({ url: cicap.url("echo") });
    const { verdict } = await scan(service, Buffer.alloc(50_000_000, "abc"));
    expect(verdict.outcome).toBe("error");
  });

  it("that is not there is the wrong service", async () => {
    await using service = new IcapService({ url: cicap.url("nothing") });
    await expect(scan(service, "hello")).rejects.toMatchObject({ code: "wrong_service" });
  });
});
