import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { type OverrideKind, OverrideLedger, type OverrideRecord } from "../../src/verdicts/overrides-ledger.ts";

const HOUR = 3_600_000;
const NOW = 1_800_000_000_000;

const record = (kind: OverrideKind, at: number, expiresAt?: number): OverrideRecord => ({
  kind,
  sha256: "0".repeat(64),
  reason: "",
  at,
  ...(expiresAt === undefined ? {} : { expiresAt }),
});

describe("a ledger that is full", () => {
  it("makes room where nothing stands, and keeps what stands", () => {
    const clock = { now: NOW };
    const ledger = new OverrideLedger(() => clock.now, 3);
    expect(ledger.learn("for an hour", record("block", NOW, NOW + HOUR))).toBe("new");
    expect(ledger.learn("for two", record("allow", NOW, NOW + 2 * HOUR))).toBe("new");
    expect(ledger.learn("forgotten", record("forget", NOW))).toBe("new");
    expect(ledger.learn("one too many", record("block", NOW))).toBe("no_room");
    clock.now += HOUR;
    expect(ledger.learn("one too many", record("block", NOW))).toBe("new");
    expect(ledger.learn("another", record("block", NOW))).toBe("no_room");
    expect(["one too many", "for two"].map((digest) => ledger.of(digest)?.kind)).toEqual(["block", "allow"]);
    clock.now += HOUR;
    expect(ledger.learn("another", record("block", NOW))).toBe("new");
    clock.now += 1000 * HOUR;
    expect(ledger.learn("yet another", record("block", NOW))).toBe("no_room");
    expect(ledger.forgottenAt("forgotten")).toBeGreaterThanOrEqual(NOW);
    expect([...ledger.standing()].map(({ digest }) => digest).toSorted()).toEqual(["another", "forgotten", "one too many"]);
  });

  it("keeps a content of which one kind is over and another stands", () => {
    const clock = { now: NOW };
    const ledger = new OverrideLedger(() => clock.now, 1);
    ledger.learn("a", record("block", NOW, NOW + HOUR));
    ledger.learn("a", record("allow", NOW));
    clock.now += HOUR;
    expect(ledger.learn("b", record("block", NOW))).toBe("no_room");
    expect(ledger.of("a")?.kind).toBe("allow");
  });

  it("has no room for what is over already, and does not tell of it", () => {
    const ledger = new OverrideLedger(() => NOW, 1);
    ledger.learn("a", record("block", NOW));
    expect(ledger.learn("b", record("block", NOW - HOUR, NOW - 1))).toBe("known");
    expect(ledger.of("a")?.kind).toBe("block");
  });

  it("does not look through all it has for each that finds no room", () => {
    let asked = 0;
    const ledger = new OverrideLedger(() => {
      asked += 1;
      return NOW;
    }, 1000);
    for (let n = 0; n < 1000; n += 1) ledger.learn(randomBytes(8).toString("hex"), record("block", NOW, NOW + HOUR));
    asked = 0;
    for (let n = 0; n < 1000; n += 1) expect(ledger.learn(`${n}`, record("block", NOW))).toBe("no_room");
    expect(asked).toBeLessThan(10_000);
  });
});

describe("a forget", () => {
  it("voids verdicts of a clock that is ten seconds ahead", () => {
    const ledger = new OverrideLedger(() => NOW);
    expect(ledger.forgottenAt("a")).toBe(-Infinity);
    ledger.learn("a", record("forget", NOW));
    expect(ledger.forgottenAt("a")).toBe(NOW + 10_000);
    // A block after it is none of the verdicts.
    ledger.learn("a", record("block", NOW + 1));
    expect(ledger.of("a")?.kind).toBe("block");
  });
});
