import { describe, expect, it } from "vitest";
import { Policy, type PolicyOptions } from "../../src/scan/policy.ts";
import type { VerdictRecord } from "../../src/verdicts/store.ts";
import { FakeScanner } from "../support/fake-scanner.ts";

const [antivirus, dlp, adviser] = [new FakeScanner("antivirus"), new FakeScanner("dlp"), new FakeScanner("adviser", { required: false })];
const STAMP = { tag: "1", at: 1 };
const CLEAN: VerdictRecord = { outcome: "clean", stamps: { antivirus: STAMP, dlp: STAMP } };
const INFECTED: VerdictRecord = { outcome: "infected", stamps: { dlp: STAMP }, threat: "x", scanner: "dlp" };

function policy(scanners: readonly FakeScanner[], more: Partial<PolicyOptions> = {}): Policy {
  const options = {
    onUnavailable: "block",
    onUnscannable: "block",
    onModified: "block",
    allowedTypes: undefined,
    blockedTypes: [],
  } as const;
  return new Policy(scanners, { ...options, ...more }, { scanned() {} });
}

describe("a verdict that was made under another policy", () => {
  const made = policy([antivirus, dlp]);

  it("holds as it is where the same are asked in the same way", () => {
    expect(policy([antivirus, dlp, adviser]).carriedOver(CLEAN, made)).toBe(CLEAN);
    expect(policy([antivirus, dlp]).carriedOver(INFECTED, made)).toBe(INFECTED);
  });

  it("is clean, by their own word, where fewer decide", () => {
    expect(policy([antivirus]).carriedOver(CLEAN, made)).toEqual({ outcome: "clean", stamps: { antivirus: STAMP } });
  });

  it("says nothing where somebody was not asked, or in another way; where types are kept out otherwise; where it is not clean", () => {
    expect(policy([antivirus, new FakeScanner("other")]).carriedOver(CLEAN, made)).toBeUndefined();
    expect(policy([antivirus, dlp, new FakeScanner("third")]).carriedOver(CLEAN, made)).toBeUndefined();
    expect(policy([antivirus, new FakeScanner("dlp"), new FakeScanner("x")]).carriedOver(CLEAN, made)).toBeUndefined();
    expect(policy([antivirus], { blockedTypes: ["image/png"] }).carriedOver(CLEAN, made)).toBeUndefined();
    expect(policy([antivirus]).carriedOver(INFECTED, made)).toBeUndefined();
  });
});

describe("a clean verdict that comes to nothing while another scanner is waited for", () => {
  const MEDIA = Buffer.from("media");
  const subject = {
    size: MEDIA.length,
    type: undefined,
    open: async function* open() {
      yield MEDIA;
    },
  };

  /** Two scanners; each time that the slow one holds, what the quick one said is over. */
  async function judged(quick: FakeScanner, changes: number): Promise<unknown> {
    const slow = new FakeScanner("slow");
    const { promise, resolve } = Promise.withResolvers<void>();
    slow.hold = promise;
    const asked = policy([quick, slow]).judge(subject, new AbortController().signal);
    await expect.poll(() => quick.scanned.length).toBe(1);
    quick.tag = "signatures-2";
    if (changes > 1) quick.upholds = () => false;
    resolve();
    return asked;
  }

  it("is asked for again, and the new one counts", async () => {
    const harmless = new FakeScanner("quick");
    expect(await judged(harmless, 1)).toMatchObject({ outcome: "clean", stamps: { quick: { tag: "signatures-2" } } });
    expect(harmless.scanned).toHaveLength(2);
    const wiser = new FakeScanner("quick");
    const upholds = wiser.upholds.bind(wiser);
    wiser.upholds = (stamp) => {
      wiser.finds = MEDIA;
      return upholds(stamp);
    };
    expect(await judged(wiser, 1)).toMatchObject({ outcome: "infected", scanner: "quick" });
  });

  it("is none in the end, if none holds", async () => {
    const fickle = new FakeScanner("quick");
    await expect(judged(fickle, 2)).rejects.toMatchObject({ code: "scanner_unavailable" });
    expect(fickle.scanned).toHaveLength(3);
  });
});
