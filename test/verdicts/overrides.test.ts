import { describe, expect, it } from "vitest";
import { type Override, Overrides, type OverrideSource } from "../../src/verdicts/overrides.ts";

const block: Override = { kind: "block", reason: "", at: 1, expiresAt: undefined };
const allow: Override = { kind: "allow", reason: "", at: 2, expiresAt: undefined };

function source(override?: Override, forgottenAt = -Infinity, problems: readonly string[] = []): OverrideSource {
  return {
    of: (digest) => (digest === "a" ? override : undefined),
    forgottenAt: (digest) => (digest === "a" ? forgottenAt : -Infinity),
    allowsAny: override?.kind === "allow",
    health: () => ({ degraded: problems.length > 0, problems }),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

describe("overrides from several places", () => {
  it("block when one of them does, whatever another one allows", () => {
    expect(new Overrides([source(allow), source(), source(block)]).of("a")).toBe(block);
    expect(new Overrides([source(block), source(allow)]).of("a")).toBe(block);
    expect(new Overrides([source(), source(allow)]).of("a")).toBe(allow);
    expect(new Overrides([source(block)]).of("b")).toBeUndefined();
    expect(new Overrides([]).of("a")).toBeUndefined();
  });

  it("forget what the latest of them forgot", () => {
    expect(new Overrides([source(undefined, 5), source(undefined, 9), source()]).forgottenAt("a")).toBe(9);
    expect(new Overrides([source()]).forgottenAt("a")).toBe(-Infinity);
  });

  it("allow something if one of them does", () => {
    expect(new Overrides([source(block), source(allow)]).allowsAny).toBe(true);
    expect(new Overrides([source(block), source()]).allowsAny).toBe(false);
  });

  it("tell of all that is wrong, and are all closed", async () => {
    const closed: number[] = [];
    const sources = [0, 1].map((n) => ({ ...source(block, 1, [`p${n}`]), [Symbol.asyncDispose]: async () => void closed.push(n) }));
    const overrides = new Overrides([...sources, source()]);
    expect(overrides.health()).toEqual({ degraded: true, problems: ["p0", "p1"] });
    await overrides[Symbol.asyncDispose]();
    expect(closed).toEqual([0, 1]);
  });
});
