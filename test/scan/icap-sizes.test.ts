import { describe, expect, it } from "vitest";
import type { IcapServiceOptions } from "../../icap/index.ts";
import type { IcapScanner, IcapScannerOptions } from "../../src/scan/icap-scanner.ts";
import type { SharedProof, SharedProofs } from "../../src/verdicts/shared-proofs.ts";
import { Antivirus, scannerOf, subject } from "../support/antivirus.ts";

const MEBIBYTE = 1024 * 1024;
const WANTED = 4 * MEBIBYTE;
const SIGNAL = new AbortController().signal;
const SOON = { timeout: 20_000 };
const SIZES = { proveSize: true, maxFileSize: WANTED } satisfies Partial<IcapScannerOptions>;

function isLarge(body: Buffer): boolean {
  return body.length === WANTED;
}

function provenSize(scanner: IcapScanner): number | undefined {
  return scanner.replicas()[0]?.provenSize;
}

describe("while the size of a service is proven", () => {
  it.each([1, 2])("its only connections (%i) are a scan's as soon as it wants one, and the proof goes on later", async (maxConnections) => {
    await using antivirus = new Antivirus();
    const url = await antivirus.start();
    const never = new Promise<void>(() => undefined);
    antivirus.hold = (body) => (isLarge(body) ? never : Promise.resolve());
    const { scanner } = await scannerOf([url], { ...SIZES, services: [{ url, maxConnections }] });
    await expect.poll(() => antivirus.seen.filter(isLarge).length, SOON).toBe(1);
    expect(await scanner.scan(subject(Buffer.from("media")), SIGNAL)).toMatchObject({ outcome: "clean" });
    antivirus.hold = () => Promise.resolve();
    await expect.poll(() => provenSize(scanner), SOON).toBe(WANTED);
  });

  it("an engine that goes and comes back leaves it as it was: nothing is said of its size, and soon it is known", async () => {
    await using antivirus = new Antivirus();
    let outage = true;
    antivirus.before = (body) => {
      if (isLarge(body) && outage) antivirus.failing = true;
    };
    const { scanner, entries } = await scannerOf([await antivirus.start()], SIZES);
    await expect.poll(() => scanner.health().ready, SOON).toBe(false);
    expect(scanner.health().problems.join()).not.toContain("max_file_size");
    outage = false;
    antivirus.failing = false;
    await expect.poll(() => provenSize(scanner), SOON).toBe(WANTED);
    const sizes = entries.filter(({ what }) => what === "size").map(({ why }) => Number(why));
    expect(sizes.filter((size) => size < MEBIBYTE)).toEqual([]);
    expect(scanner.health().problems.join()).not.toContain("max_file_size");
  });
});

/** An address of this machine that does not look like one, so that its proofs are shared. */
const ELSEWHERE = "0x7f.0.0.1";

/** What one instance tells others. */
class Shared implements SharedProofs {
  readonly #proofs = new Map<string, SharedProof>();

  async recall(key: string): Promise<SharedProof | undefined> {
    return this.#proofs.get(key);
  }

  async remember(key: string, proof: SharedProof): Promise<void> {
    this.#proofs.set(key, proof);
  }

  async lease(): Promise<AsyncDisposable> {
    return { [Symbol.asyncDispose]: async () => undefined };
  }
}

async function largeCanariesOfTwo(other: Partial<IcapServiceOptions>, more: Partial<IcapScannerOptions> = {}): Promise<number> {
  await using antivirus = new Antivirus();
  const url = (await antivirus.start()).replace("127.0.0.1", ELSEWHERE);
  const sharedProofs = new Shared();
  for (const [service, rest] of [
    [{}, {}],
    [other, more],
  ] as const) {
    const options = { ...SIZES, sharedProofs, services: [{ url, ...service }], ...rest };
    const { scanner } = await scannerOf([url], options);
    await expect.poll(() => provenSize(scanner), SOON).toBe(WANTED);
  }
  return antivirus.seen.filter(isLarge).length;
}

describe("instances share what is proven", () => {
  it("if they ask the same service in the same way", async () => {
    expect(await largeCanariesOfTwo({})).toBe(1);
  });

  it.each<[string, Partial<IcapServiceOptions>, Partial<IcapScannerOptions>?]>([
    ["by another account", { credentials: { username: "other", password: "secret" } }],
    ["with other headers", { fields: [["X-Policy", "strict"]] }],
    ["with transfer lists", { transferLists: "trusted" }],
    ["with previews", { preview: "required" }],
    ["by another profile", { profile: "c-icap" }],
    ["with more headers that block", { blockedBy: ["X-Other"] }],
    ["telling the type", {}, { describeType: true }],
    ["by another name", {}, { name: "other" }],
  ])("but not if one asks %s", async (_, other, more) => {
    expect(await largeCanariesOfTwo(other, more)).toBe(2);
  });
});
