import { describe, expect, it } from "vitest";
import { isFailure, markdownReport, progressLine, textReport } from "../../bench/report.ts";
import type { Group, LoadRow } from "../../bench/row.ts";
import type { LoadOutcome, Outcome } from "../../bench/run-row.ts";

const ROW: LoadRow = {
  name: "cold-1m",
  title: "download 1 MiB",
  endpoint: "download",
  size: 2 ** 20,
  connections: 32,
  ceilings: ["homeserver"],
};
const FIGURES = {
  requestsPerSecond: 123.456,
  bytesPerSecond: 129_453_981,
  seconds: 4,
  p50: 1.23456,
  p99: 99.96,
  firstByteP50: 0.5,
  firstByteP99: 1,
  cpuPerRequest: 2,
  cpuPerMiB: 2,
  idleMemory: 100e6,
  peakMemory: 200e6,
};
const RIGHT: LoadOutcome = {
  row: ROW,
  figures: FIGURES,
  ceilings: { homeserver: { ...FIGURES, requestsPerSecond: 1234.56 } },
  facts: { "asked | answered": 1 },
  runs: [FIGURES],
  errors: 0,
  examples: [],
};
const GROUP: Group = { name: "cold", title: "Cold", rows: [ROW] };

function report(outcome: Outcome): { group: Group; outcomes: Outcome[] } {
  return { group: GROUP, outcomes: [outcome] };
}

describe("a report", () => {
  it("has three digits of each figure, its share of the ceiling, and no column in which nothing stands", () => {
    const lines = markdownReport(report(RIGHT))
      .split("\n")
      .filter((line) => line.startsWith("|"));
    expect(lines).toEqual([
      "| row | at once | requests/s | MB/s | p50 ms | p99 ms | first byte ms | CPU ms/request | CPU ms/MiB | idle MB | peak MB | homeserver itself | beside |",
      "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |",
      "| download 1 MiB | 32 | 123 | 129 | 1.23 | 100 | 0.5 | 2 | 2 | 100 | 200 | 1235/s, 10 % | asked \\| answered: 1 |",
    ]);
  });

  it("shows a row that needs no load by what was found out", () => {
    const start: Outcome = {
      row: { name: "start", title: "start to ready", measure: async () => ({}) },
      facts: { milliseconds: 512.3 },
      runs: [],
    };
    expect(textReport(report(start)).split("\n").at(-1)).toMatch(/^start to ready +milliseconds +512$/);
    expect(progressLine(start)).toBe("start: milliseconds: 512");
    expect(isFailure(start)).toBe(false);
  });

  it.each<[string, Outcome, RegExp]>([
    ["has errors", { ...RIGHT, errors: 2, examples: ["503 busy"] }, /^cold-1m: 2 ERRORS, its figures are void: 503 busy$/],
    ["answered nothing", { ...RIGHT, figures: { ...FIGURES, requestsPerSecond: 0 } }, /^cold-1m: NOTHING WAS ANSWERED/],
    ["could not be measured", { row: ROW, failure: "the gateway has ended" }, /^cold-1m: FAILED: the gateway has ended$/],
  ])("says so when a row %s", (_what, outcome, complaint) => {
    expect(isFailure(outcome)).toBe(true);
    expect(progressLine(outcome)).toMatch(complaint);
    for (const text of [textReport(report(outcome)), markdownReport(report(outcome))]) expect(text.split("\n").at(-1)).toMatch(complaint);
  });
});
