import { describe, expect, it } from "vitest";
import { sizeAdvice } from "../../src/scan/size-advice.ts";

const MEBIBYTE = 1024 * 1024;

describe("what an operator is told of a size", () => {
  it("is as large as tables say, and never rounded up", () => {
    expect(sizeAdvice(1.999 * MEBIBYTE, 200 * MEBIBYTE)).toContain("up to 1.99 MiB only");
    expect(sizeAdvice(1.999 * MEBIBYTE, 200 * MEBIBYTE, "away")).toContain("above 1.99 MiB");
  });

  it("is what binds: the size for a file, twice that for a scan, and nothing of streams to whom c-icap scans", () => {
    const advice = sizeAdvice(5 * MEBIBYTE, 100.5 * MEBIBYTE);
    expect(advice).toMatch(
      /MaxFileSize to more than 101M .*MaxScanSize to more than 202M .*MaxObjectSize to more than 101M \(or sizelimit=off/,
    );
    expect(advice).toContain("StreamMaxLength likewise where files are streamed to clamd (c-icap does not)");
    // Else it answers before it has scanned, and is told to raise limits that do not bind.
    expect(advice).toContain("virus_scan.StartSendPercentDataAfter");
  });
});
