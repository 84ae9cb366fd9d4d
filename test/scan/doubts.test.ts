import { describe, expect, it } from "vitest";
import { Doubts } from "../../src/scan/doubts.ts";

const given = (at: number): { tag: string; at: number } => ({ tag: "any", at });

describe("doubts", () => {
  it("hold within their window, ends included, whatever the tag", () => {
    const doubts = new Doubts();
    doubts.add("clean", 10, 20);
    expect([9, 10, 15, 20, 21].map((at) => doubts.holds(given(at), "clean"))).toEqual([false, true, true, true, false]);
    expect(doubts.holds({ tag: "another", at: 15 }, "clean")).toBe(true);
  });

  it("are of one outcome", () => {
    const doubts = new Doubts();
    doubts.add("clean", 10, 20);
    expect(doubts.holds(given(15), "infected")).toBe(false);
    doubts.add("infected", 30, 40);
    expect(doubts.holds(given(35), "clean")).toBe(false);
  });

  it("reach back to the beginning of time", () => {
    const doubts = new Doubts();
    doubts.add("clean", Number.NEGATIVE_INFINITY, 20);
    expect(doubts.holds(given(0), "clean")).toBe(true);
  });

  it("are none when the end comes before the beginning", () => {
    const doubts = new Doubts();
    doubts.add("clean", 20, 10);
    expect([10, 15, 20].some((at) => doubts.holds(given(at), "clean"))).toBe(false);
  });

  it("are never forgotten, however many; the newest keep their gaps", () => {
    const doubts = new Doubts();
    for (let start = 0; start < 100_000; start += 10) doubts.add("clean", start, start + 5);
    for (let at = 0; at < 100_000; at += 5) expect(doubts.holds(given(at), "clean")).toBe(true);
    expect(doubts.holds(given(99_988), "clean")).toBe(false);
    expect(doubts.holds(given(100_001), "clean")).toBe(false);
  });
});
