import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Hints } from "../../src/verdicts/overrides-hints.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("hints", () => {
  it("are looked at at once, and what comes meanwhile after a pause", async () => {
    const looked: string[][] = [];
    using hints = new Hints((fields) => {
      looked.push([...fields]);
      return Promise.resolve();
    });
    hints.add("a");
    expect(looked).toEqual([["a"]]);
    hints.add("b");
    hints.add("b");
    await vi.advanceTimersByTimeAsync(99);
    expect(looked).toEqual([["a"]]);
    await vi.advanceTimersByTimeAsync(1);
    expect(looked).toEqual([["a"], ["b"]]);
    await vi.advanceTimersByTimeAsync(1000);
    hints.add("a");
    expect(looked).toEqual([["a"], ["b"], ["a"]]);
  });

  it("cost no more than so much, however many come", async () => {
    let looks = 0;
    const fields = new Set<string>();
    using hints = new Hints((some) => {
      looks += 1;
      for (const field of some) fields.add(field);
      return Promise.resolve();
    });
    for (let n = 0; n < 100_000; n += 1) hints.add(`forged ${n}`);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(fields.size).toBeLessThanOrEqual(600);
    expect(looks).toBeLessThanOrEqual(30);
    hints.add("true");
    expect(fields).toContain("true");
  });

  it("are not looked at while others are, or after the end", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const looked: string[][] = [];
    const hints = new Hints((fields) => {
      looked.push([...fields]);
      return promise;
    });
    hints.add("a");
    hints.add("b");
    await vi.advanceTimersByTimeAsync(10_000);
    expect(looked).toEqual([["a"]]);
    resolve();
    await vi.advanceTimersByTimeAsync(100);
    expect(looked).toEqual([["a"], ["b"]]);
    hints[Symbol.dispose]();
    hints.add("c");
    await vi.advanceTimersByTimeAsync(10_000);
    expect(looked.length).toBe(2);
  });
});
