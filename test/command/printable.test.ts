import { describe, expect, it } from "vitest";
import { jsonLine, printable } from "../../src/command/printable.ts";
import { formatTime } from "../../src/command/format-time.ts";
import { formatSize } from "../../src/scan/format-size.ts";

describe("text that others chose", () => {
  it.each([
    ["a\nb", "a\\u{a}b"],
    ["\u001b[31mred", "\\u{1b}[31mred"],
    ["\u009b2J", "\\u{9b}2J"],
    ["exe\u202egpj", "exe\\u{202e}gpj"],
    ["\ud800", "\\u{d800}"],
    ["naïve 文書 👍", "naïve 文書 👍"],
  ])("%j is written out as %s", (text, shown) => {
    expect(printable(text)).toBe(shown);
    expect(JSON.parse(jsonLine({ text }))).toEqual({ text });
    expect(jsonLine({ text }).trimEnd()).toBe(printable(jsonLine({ text }).trimEnd()));
  });
});

describe("sizes and times", () => {
  it.each([
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1 KiB"],
    [1024 * 1024 - 1, "1023 KiB"],
    [1.5 * 1024 ** 2, "1.5 MiB"],
    [200 * 1024 ** 2, "200 MiB"],
    [3 * 1024 ** 4, "3 TiB"],
  ])("%d bytes are %s", (bytes, text) => {
    expect(formatSize(bytes)).toBe(text);
  });

  it.each([
    [0.44, "0.4 ms"],
    [12.4, "12 ms"],
    [999.9, "1.0 s"],
    [3210, "3.2 s"],
    [125_000, "125 s"],
  ])("%d ms are %s", (milliseconds, text) => {
    expect(formatTime(milliseconds)).toBe(text);
  });
});
