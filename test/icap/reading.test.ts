import { describe, expect, it } from "vitest";
import { type HeaderRow, readHeaders } from "../../icap/reading.ts";

const ROW: HeaderRow = { header: "X-Infection-Found", says: "infection-found" };

function threats(values: readonly string[]): readonly string[] {
  return readHeaders([ROW], [{ names: ["x-infection-found"], get: () => values[0], all: () => values }]).map(({ text }) => text);
}

describe("X-Infection-Found", () => {
  it.each([
    ["Threat=;;;", ""],
    ["Threat = A ; ;", "A"],
    ["Type=0;Threat=;A; ;B;\n;", ";A; ;B"],
    ["Threats=A", "Threats=A"],
    ["NoThreat=A; threat=B", "B"],
    ["Threat=A; Threat=B;", "A; Threat=B"],
  ])("%j names %j", (value, threat) => {
    expect(threats([value])).toEqual([threat]);
  });

  // A pattern that takes the square of a value's length needs far longer for all of them than this test is given.
  it.each([
    [";", "Threat="],
    ["; ", "Threat="],
    [" \n", "Threat="],
    [";Threat ", ""],
    ["; \n", ""],
  ])(
    "made of %j alone is read as fast as any other",
    (piece, before) => {
      const value = `${before}${piece.repeat((4096 - before.length) / piece.length - 1)}x`;
      expect(threats(Array<string>(800).fill(value))).toHaveLength(800);
    },
    8_000,
  );
});
