import { describe, expect, it, onTestFinished } from "vitest";
import { EICAR } from "../../src/scan/canary-samples.ts";
import { type CanaryAnswer, Proof } from "../../src/scan/proof.ts";

const nothing = (): void => undefined;

function proofOf(send: (bytes: Buffer) => CanaryAnswer | Promise<CanaryAnswer>, clock: () => number): Proof {
  const log = { proven: nothing, unproven: nothing, missed: nothing };
  const options = { name: "antivirus", required: ["plain"], interval: 3_600_000, timeout: 10_000, log, clock } as const;
  const proof = new Proof({ ...options, send: async (bytes) => send(bytes) });
  onTestFinished(() => proof[Symbol.dispose]());
  return proof;
}

describe("the proof of one service", () => {
  it("does not stand when a scan met another tag while its canaries were under way", async () => {
    const proof = proofOf(
      (bytes) => {
        if (bytes.equals(EICAR)) proof.tagChanged("new");
        return { outcome: bytes.equals(EICAR) ? "infected" : "clean", tag: "old" };
      },
      () => 1000,
    );
    await proof.prove();
    expect(proof.standing).toBeUndefined();
    expect(proof.upholds({ tag: "old", at: 1000 }, "clean")).toBe(false);
  });

  it("that a tag has ended is doubted up to that moment, should the service then prove to be broken", async () => {
    let now = 1000;
    let works = true;
    const proof = proofOf(
      (bytes) => ({ outcome: works && bytes.equals(EICAR) ? "infected" : "clean", tag: "old" }),
      () => now,
    );
    await proof.prove();
    now = 2000;
    proof.tagChanged("new");
    now = 3000;
    works = false;
    await proof.prove();
    expect([500, 1500, 2500].map((at) => proof.doubts({ tag: "old", at }, "clean"))).toEqual([false, true, false]);
  });

  it("one that reports a harmless file and misses EICAR is believed in neither", async () => {
    let works = true;
    const proof = proofOf(
      (bytes) => ({ outcome: bytes.equals(EICAR) === works ? "infected" : "clean", tag: "t" }),
      () => 1000,
    );
    await proof.prove();
    works = false;
    await proof.prove();
    expect((["clean", "infected"] as const).map((outcome) => proof.doubts({ tag: "t", at: 1000 }, outcome))).toEqual([true, true]);
  });
});
