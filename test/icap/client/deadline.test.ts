import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Deadline } from "../../../icap/client/deadline.ts";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

function deadline() {
  const started = performance.now();
  const passed: number[] = [];
  const made = new Deadline(() => passed.push(performance.now() - started));
  return Object.assign(made, { passed, in: (milliseconds: number) => made.set(performance.now() + milliseconds) });
}

describe("a deadline", () => {
  it("passes once, at the moment that was set last", () => {
    using one = deadline();
    one.in(30_000);
    one.in(120_000);
    vi.advanceTimersByTime(20_000);
    one.in(5_000);
    vi.advanceTimersByTime(4_999);
    expect(one.passed).toEqual([]);
    vi.advanceTimersByTime(600_000);
    expect(one.passed).toEqual([25_000]);
  });

  it("that moved away while its timer was under way passes later", () => {
    using one = deadline();
    one.in(1_000);
    vi.advanceTimersByTime(900);
    one.in(1_000);
    vi.advanceTimersByTime(999);
    expect(one.passed).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(one.passed).toEqual([1_900]);
  });

  it("that was given up does not pass, and may be set anew", () => {
    using one = deadline();
    one.in(1_000);
    one.set(Infinity);
    vi.advanceTimersByTime(5_000);
    expect({ passed: one.passed, timers: vi.getTimerCount() }).toEqual({ passed: [], timers: 0 });
    one.in(1_000);
    vi.advanceTimersByTime(1_000);
    expect(one.passed).toEqual([6_000]);
  });

  it("leaves no timer behind when it is disposed of", () => {
    const one = deadline();
    one.in(1_000);
    one[Symbol.dispose]();
    expect(vi.getTimerCount()).toBe(0);
    one.in(500);
    one[Symbol.dispose]();
    vi.advanceTimersByTime(5_000);
    expect(one.passed).toEqual([]);
  });

  it("is set only once for many moves into the future", () => {
    using one = deadline();
    const timers = vi.spyOn(globalThis, "setTimeout");
    for (let n = 0; n < 100; n += 1) {
      one.in(30_000);
      one.set(Infinity);
      one.in(120_000);
      vi.advanceTimersByTime(1);
    }
    expect(timers).toHaveBeenCalledTimes(1);
  });
});
