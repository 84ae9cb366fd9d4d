import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Doubt, Doubts, MAX_WINDOWS } from "../../src/scan/doubts.ts";

const given = (at: number): { tag: string; at: number } => ({ tag: "any", at });
const clean = (from: number, until: number): Doubt => ({ of: "clean", from, until });
const infected = (from: number, until: number): Doubt => ({ of: "infected", from, until });

describe("doubts", () => {
  it("hold within their window, ends included, whatever the tag", () => {
    const doubts = new Doubts([clean(10, 20)]);
    expect([9, 10, 15, 20, 21].map((at) => doubts.holds(given(at), "clean"))).toEqual([false, true, true, true, false]);
    expect(doubts.holds({ tag: "another", at: 15 }, "clean")).toBe(true);
  });

  it("are of one outcome", () => {
    const doubts = new Doubts([clean(10, 20)]);
    expect(doubts.holds(given(15), "infected")).toBe(false);
    doubts.add(infected(30, 40));
    expect(doubts.holds(given(35), "clean")).toBe(false);
    expect(doubts.holds(given(35), "infected")).toBe(true);
  });

  it("reach back to the beginning of time", () => {
    const doubts = new Doubts([clean(Number.NEGATIVE_INFINITY, 20)]);
    expect(doubts.holds(given(0), "clean")).toBe(true);
  });

  it("are none when the end comes before the beginning, or there is neither", () => {
    const doubts = new Doubts();
    expect([doubts.add(clean(20, 10)), doubts.add(clean(Number.NaN, 10)), doubts.add(clean(10, Number.NaN))]).toEqual([
      false,
      false,
      false,
    ]);
    expect([10, 15, 20].some((at) => doubts.holds(given(at), "clean"))).toBe(false);
    expect([...doubts]).toEqual([]);
  });

  it("say whether they are new, and are one where they meet", () => {
    const doubts = new Doubts();
    expect(doubts.add(clean(10, 20))).toBe(true);
    expect(doubts.add(clean(12, 20))).toBe(false);
    expect(doubts.add(clean(30, 40))).toBe(true);
    expect([doubts.covers(clean(30, 40)), doubts.covers(clean(15, 35)), doubts.covers(infected(30, 40))]).toEqual([true, false, false]);
    expect(doubts.add(clean(20, 30))).toBe(true);
    expect(doubts.add(infected(1, 2))).toBe(true);
    expect([...doubts]).toEqual([clean(10, 40), infected(1, 2)]);
  });

  it("are never forgotten, however many; the newest keep their gaps", () => {
    const doubts = new Doubts();
    for (let start = 0; start < 100_000; start += 10) doubts.add(clean(start, start + 5));
    for (let at = 0; at < 100_000; at += 5) expect(doubts.holds(given(at), "clean")).toBe(true);
    expect(doubts.holds(given(99_988), "clean")).toBe(false);
    expect(doubts.holds(given(100_001), "clean")).toBe(false);
  });

  it("hold all that was ever added, in whatever order, and stay few", () => {
    const window = fc
      .tuple(fc.integer({ min: 0, max: 2000 }), fc.integer({ min: 0, max: 5 }))
      .map(([from, length]) => clean(from, from + length));
    fc.assert(
      fc.property(fc.array(window, { maxLength: 120 }), (all) => {
        const doubts = new Doubts(all);
        expect([...doubts].length).toBeLessThanOrEqual(MAX_WINDOWS);
        for (const doubt of all) expect(doubts.covers(doubt)).toBe(true);
      }),
      { numRuns: 200 },
    );
  });
});
