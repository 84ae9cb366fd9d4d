import { describe, expect, it } from "vitest";
import { figuresOf, median, medianOf } from "../../bench/figures.ts";

const RESULT = {
  requests: 200,
  bytes: 200 * 1024 * 1024,
  elapsed: 4000,
  latency: { p50: 3, p99: 9 },
  firstByte: { p50: 1, p99: 2 },
  errors: 0,
  examples: [],
};

describe("figures", () => {
  it("are per second, per request and per MiB", () => {
    expect(figuresOf(RESULT, { cpu: 1000, idle: 10, peak: 30 })).toEqual({
      requestsPerSecond: 50,
      bytesPerSecond: 50 * 1024 * 1024,
      seconds: 4,
      p50: 3,
      p99: 9,
      firstByteP50: 1,
      firstByteP99: 2,
      cpuPerRequest: 5,
      cpuPerMiB: 5,
      idleMemory: 10,
      peakMemory: 30,
    });
  });

  it("are not known of processes that are not known", () => {
    expect(figuresOf(RESULT)).toMatchObject({ requestsPerSecond: 50, cpuPerRequest: Number.NaN, peakMemory: Number.NaN });
  });
});

describe("the median", () => {
  it.each([
    [[7], 7],
    [[9, 1, 5], 5],
    [[10, 9], 9.5],
    [[4, 1, 3, 2], 2.5],
    [[100, 20, 3], 20],
  ])("of %j is %d", (numbers, middle) => {
    expect(median(numbers)).toBe(middle);
  });

  it("is not known of none, nor where one is not known", () => {
    expect(median([])).toBeNaN();
    expect(median([1, Number.NaN, 2])).toBeNaN();
  });

  it("of runs is each figure's own", () => {
    expect(
      medianOf([
        { a: 1, b: 30 },
        { a: 3, b: 10 },
        { a: 2, b: 20 },
      ]),
    ).toEqual({ a: 2, b: 20 });
    expect(() => medianOf([])).toThrow(RangeError);
  });
});
