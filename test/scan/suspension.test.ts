import { describe, expect, it } from "vitest";
import { Suspension } from "../../src/scan/suspension.ts";

const RULES = { failures: 3, within: 1000, pause: 100, maxPause: 350 };

/** Three failures at once. */
function trouble(suspension: Suspension, now: number): number | undefined {
  suspension.failed(now);
  suspension.failed(now);
  return suspension.failed(now);
}

describe("a suspension", () => {
  it("follows so many failures within their time, and no fewer", () => {
    const suspension = new Suspension(RULES);
    expect([0, 999].map((now) => suspension.failed(now))).toEqual([undefined, undefined]);
    // The first is forgotten by now.
    expect(suspension.failed(1000)).toBeUndefined();
    expect(suspension.failed(1001)).toBe(100);
    expect(suspension.failed(1002)).toBeUndefined();
  });

  it("is twice as long each time, up to its limit", () => {
    const suspension = new Suspension(RULES);
    expect([0, 500, 1000, 1500, 2000].map((now) => trouble(suspension, now))).toEqual([100, 200, 350, 350, 350]);
  });

  it("is short again once scans succeed a while after the last pause, and not before", () => {
    const suspension = new Suspension(RULES);
    trouble(suspension, 0);
    suspension.succeeded(1099);
    expect(trouble(suspension, 1099)).toBe(200);
    suspension.succeeded(2299);
    expect(trouble(suspension, 3000)).toBe(100);
  });

  it("stays long while some scans fail between those that succeed", () => {
    const suspension = new Suspension(RULES);
    trouble(suspension, 0);
    suspension.failed(1900);
    suspension.succeeded(2000);
    expect(trouble(suspension, 5000)).toBe(200);
  });

  it("is never longer than its limit, not even the first", () => {
    expect(trouble(new Suspension({ ...RULES, pause: 1000 }), 0)).toBe(350);
  });
});
