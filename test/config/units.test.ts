import { describe, expect, it } from "vitest";
import { parseDuration, parseSize } from "../../src/config/units.ts";

describe("a size", () => {
  it.each([
    ["0", 0],
    [1024, 1024],
    ["100MB", 100_000_000],
    ["100 mb", 100_000_000],
    ["100M", 100_000_000],
    ["64MiB", 67_108_864],
    ["1.5KiB", 1536],
    ["10GiB", 10_737_418_240],
    ["2 terabytes", 2_000_000_000_000],
    ["7 bytes", 7],
  ])("%s is %d bytes", (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  it.each(["", "MB", "-1", -1, "1e9", "10 s", "1.", "1MB 2KB", "0x10", "999999TiB", Number.NaN, Infinity, "1,5MB"])(
    "%s is none",
    (text) => {
      expect(parseSize(text)).toBeUndefined();
    },
  );
});

describe("a duration", () => {
  it.each([
    [30, 30_000],
    [0.5, 500],
    ["45", 45_000],
    ["250ms", 250],
    ["30s", 30_000],
    ["2 minutes", 120_000],
    ["5m", 300_000],
    ["1.5h", 5_400_000],
    ["1d", 86_400_000],
    ["1 week", 604_800_000],
    ["1 year", 52 * 604_800_000],
  ])("%s is %d ms", (text, milliseconds) => {
    expect(parseDuration(text)).toBe(milliseconds);
  });

  it.each(["", "s", "-5s", "5 fortnights", "1h30m", "ten seconds", "10MB"])("%s is none", (text) => {
    expect(parseDuration(text)).toBeUndefined();
  });
});
