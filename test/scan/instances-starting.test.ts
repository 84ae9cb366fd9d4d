/** Two instances with one Redis, each with an engine of its own that says the same ISTag, whatever signatures it has: as c-icap does. */
import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { signatureService } from "../../icap/index.ts";
import { EICAR } from "../../src/scan/canary-samples.ts";
import type { IcapScanner } from "../../src/scan/icap-scanner.ts";
import { RedisRecords } from "../../src/verdicts/redis-records.ts";
import { DoubtRecords } from "../../src/verdicts/shared-doubts.ts";
import { Antivirus, unstartedScannerOf } from "../support/antivirus.ts";
import { FakeHomeserver } from "../support/fake-homeserver.ts";
import { type Harness, startHarness, TOKEN } from "../support/harness.ts";
import { type Redis as Server, startRedis } from "../support/peers/redis.ts";

const nothing = (): void => undefined;
const VIRUS = Buffer.from("a virus that only today's signatures know");

let server: Server;
let homeserver: FakeHomeserver;

beforeAll(async () => {
  server = await startRedis();
  homeserver = await FakeHomeserver.start();
});

afterAll(async () => {
  await homeserver[Symbol.asyncDispose]();
  await server.stop();
});

/** What instances of one deployment have in common. */
function deployment(): (url: string, machine: string) => Promise<{ gateway: Harness; scanner: IcapScanner }> {
  const secret = randomBytes(32);
  const keyPrefix = `${randomBytes(6).toString("hex")}:`;
  return async (url, machine) => {
    const records = new RedisRecords({
      connection: { url: server.url, limit: 10_000 },
      keyPrefix,
      secret,
      log: { info: nothing, warn: nothing },
    });
    onTestFinished(() => records[Symbol.dispose]());
    await expect.poll(() => records.health().degraded).toBe(false);
    const sharedDoubts = new DoubtRecords({ records, secret, lifetime: 3_600_000, machine });
    const { scanner } = unstartedScannerOf([url], { sharedDoubts });
    const gateway = await startHarness({ scanners: [scanner], shared: { homeserver, secret, records } });
    onTestFinished(() => gateway[Symbol.asyncDispose]());
    return { gateway, scanner };
  };
}

/** An engine; `current` knows the virus. */
async function engine(current: boolean): Promise<{ antivirus: Antivirus; url: string }> {
  const antivirus = new Antivirus();
  onTestFinished(() => antivirus[Symbol.asyncDispose]());
  const signatures = [{ threat: "Eicar", contains: EICAR }, ...(current ? [{ threat: "Today", contains: VIRUS }] : [])];
  antivirus.table = signatureService({ signatures, table: { isTag: () => "tag-1" } });
  return { antivirus, url: await antivirus.start() };
}

/** Its canaries take a while. */
function slowly(antivirus: Antivirus, files: readonly Buffer[]): void {
  antivirus.hold = async (body) => {
    if (!files.some((file) => file.equals(body))) await sleep(300);
  };
}

describe("an instance that has just started", () => {
  it("scans nothing that the others know", async () => {
    const instance = deployment();
    const { antivirus, url } = await engine(true);
    const one = await instance(url, "one");
    await one.scanner.start();
    const files = Array.from({ length: 10 }, () => randomBytes(1000));
    const mxcs = files.map((bytes) => one.gateway.put(bytes));
    for (const mxc of mxcs) expect((await one.gateway.get(`download/${mxc}`, TOKEN)).status).toBe(200);
    const scans = (): number => antivirus.seen.filter((body) => files.some((file) => file.equals(body))).length;
    expect(scans()).toBe(files.length);

    slowly(antivirus, files);
    const two = await instance(url, "two");
    const answers = mxcs.map((mxc) => two.gateway.get(`download/${mxc}`, TOKEN));
    void two.scanner.start();
    for (const [index, answer] of (await Promise.all(answers)).entries()) {
      expect([answer.status, answer.body.equals(files[index] ?? Buffer.alloc(0))]).toEqual([200, true]);
    }
    expect(scans()).toBe(files.length);
  });

  it("beside an engine that lags does not acquit what another one found", async () => {
    const instance = deployment();
    const [current, lagging] = [await engine(true), await engine(false)];
    const one = await instance(current.url, "one");
    await one.scanner.start();
    const mxc = one.gateway.put(VIRUS);
    expect((await one.gateway.get(`download/${mxc}`, TOKEN)).status).toBe(403);

    slowly(lagging.antivirus, [VIRUS]);
    const two = await instance(lagging.url, "two");
    void two.scanner.start();
    expect((await two.gateway.get(`download/${mxc}`, TOKEN)).status).toBe(403);
    for (const { gateway } of [one, two]) {
      for (const name of [mxc, gateway.put(VIRUS)]) expect((await gateway.get(`download/${name}`, TOKEN)).status).toBe(403);
    }
  });
});
