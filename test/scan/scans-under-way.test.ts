import { describe, expect, it } from "vitest";
import type { Standing } from "../../src/scan/proof.ts";
import { ScansUnderWay } from "../../src/scan/scans-under-way.ts";

function standing(): Standing & { lose(): Error } {
  const controller = new AbortController();
  const reason = new Error("lost");
  return {
    tag: "t",
    lost: controller.signal,
    lose: () => {
      controller.abort(reason);
      return reason;
    },
  };
}

const signal = new AbortController().signal;

describe("scans under way", () => {
  it("end with their own standing, all of them, and with no other", () => {
    const scans = new ScansUnderWay();
    const [first, second] = [standing(), standing()];
    using one = scans.begin(first, signal);
    using another = scans.begin(first, signal);
    using later = scans.begin(second, signal);
    using back = scans.begin(first, signal);
    const reason = first.lose();
    expect([one, another, back].map((scan) => scan.signal.reason as unknown)).toEqual([reason, reason, reason]);
    expect(later.signal.aborted).toBe(false);
    second.lose();
    expect(later.signal.aborted).toBe(true);
  });

  it("end with their own signal", () => {
    const scans = new ScansUnderWay();
    const held = standing();
    const caller = new AbortController();
    using one = scans.begin(held, caller.signal);
    using another = scans.begin(held, signal);
    caller.abort(new Error("gone"));
    expect([one.signal.aborted, another.signal.aborted]).toEqual([true, false]);
  });

  it("that are over hear nothing any more", () => {
    const scans = new ScansUnderWay();
    const held = standing();
    const caller = new AbortController();
    const over = scans.begin(held, caller.signal);
    over[Symbol.dispose]();
    held.lose();
    caller.abort(new Error("gone"));
    expect(over.signal.aborted).toBe(false);
  });
});
