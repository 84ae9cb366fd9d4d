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
