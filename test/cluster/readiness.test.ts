import { describe, expect, it } from "vitest";
import { readinessOfAll } from "../../src/cluster/readiness.ts";

const well = { ready: true, degraded: false, problems: [] };
const broken = { ready: false, degraded: true, problems: ["antivirus: it is down"] };

describe("the readiness of all workers", () => {
  it.each([
    ["all are well", [well, well], [], { ready: true, degraded: false, problems: [] }],
    ["one is not", [well, broken], [], { ready: true, degraded: true, problems: ["worker 2: antivirus: it is down"] }],
    ["some are not", [broken, well, broken], [], { ready: true, degraded: true, problems: ["workers 1, 3: antivirus: it is down"] }],
    ["none is", [broken, broken], [], { ready: false, degraded: true, problems: ["antivirus: it is down"] }],
    ["one does not answer", [well, undefined], [], { ready: true, degraded: true, problems: ["worker 2 does not answer"] }],
    ["none answers", [undefined], [], { ready: false, degraded: true, problems: ["worker 1 does not answer"] }],
    [
      "one is being replaced",
      [well],
      ["worker 2: was ended by SIGKILL; it is being replaced"],
      { ready: true, degraded: true, problems: ["worker 2: was ended by SIGKILL; it is being replaced"] },
    ],
    ["there is none", [], [], { ready: false, degraded: false, problems: [] }],
  ])("when %s", (_, said, problems, expected) => {
    const workers = said.map((one, index) => ({ number: index + 1, said: one }));
    expect(readinessOfAll(workers, problems)).toEqual(expected);
  });
});
