import { afterEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { EICAR } from "../../src/scan/canary-samples.ts";
import { type CanaryAnswer, Proof, type ProofOptions } from "../../src/scan/proof.ts";

const nothing = (): void => undefined;
const SIGNAL = new AbortController().signal;

type Send = (bytes: Buffer, signal: AbortSignal) => CanaryAnswer | Promise<CanaryAnswer>;

function proofOf(send: Send, clock: () => number, more: Partial<ProofOptions> = {}): Proof {
  const log = { proven: nothing, unproven: nothing, missed: nothing };
  const options = { name: "antivirus", required: ["plain"], interval: 3_600_000, timeout: 30_000, log, clock, ...more } as const;
  const proof = new Proof({ ...options, send: async ({ bytes }, signal) => send(bytes, signal) });
  onTestFinished(() => proof[Symbol.dispose]());
  return proof;
}

/** A service that works. */
const honest: Send = (bytes) => ({ outcome: bytes.equals(EICAR) ? "infected" : "clean", tag: "t" });

function untilAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
  });
}

/** One that takes its canaries and answers them only when told; its first run is under way. */
async function stuck(more: Partial<ProofOptions> = {}): Promise<{ proof: Proof; answer: () => void }> {
  vi.useFakeTimers();
  let hung = false;
  const waiting = new Set<() => void>();
  const proof = proofOf(
    (bytes, signal) => {
      if (!hung) return honest(bytes, signal);
      return Promise.race([untilAborted(signal), new Promise<void>((resolve) => waiting.add(resolve))]).then(() => honest(bytes, signal));
    },
    () => Date.now(),
    more,
  );
  await proof.prove();
  hung = true;
  proof.keptWaiting();
  await vi.advanceTimersByTimeAsync(1_000);
  return {
    proof,
    answer: () => {
      hung = false;
      for (const resolve of waiting) resolve();
    },
  };
}

afterEach(() => {
  vi.useRealTimers();
});

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

  it("tells whoever relies on a standing that it is lost, and never gives the same one twice", async () => {
    const proof = proofOf(honest, () => 1000);
    await proof.prove();
    const first = proof.standing;
    await proof.prove();
    expect(proof.standing).toBe(first);
    expect(first?.lost.aborted).toBe(false);
    proof.unreachable("gone");
    expect([proof.standing, proof.state, first?.lost.aborted]).toEqual([undefined, "down", true]);
    await proof.prove();
    expect(proof.standing?.tag).toBe("t");
    expect(proof.standing).not.toBe(first);
  });

  it("names its state at each step", async () => {
    let answer: Send = honest;
    let seen: string[] = [];
    const proof = proofOf(
      (bytes, signal) => {
        seen.push(proof.state);
        return answer(bytes, signal);
      },
      () => 1000,
    );
    expect(proof.state).toBe("starting");
    await proof.prove();
    expect([seen[0], proof.state]).toEqual(["starting", "up"]);
    answer = () => ({ outcome: "clean", tag: "t" });
    await proof.prove();
    expect(proof.state).toBe("broken");
    seen = [];
    answer = () => ({ outcome: "unreachable", why: "gone" });
    await proof.prove();
    expect([seen[0], proof.state]).toEqual(["broken", "down"]);
    seen = [];
    answer = honest;
    await proof.prove();
    expect([seen[0], proof.state]).toEqual(["probed", "up"]);
    proof.tagChanged("another");
    expect(proof.state).toBe("starting");
  });
});

describe("a suspended service", () => {
  it("is not used, whatever its canaries come to, until the pause is over and it passes them once more", async () => {
    vi.useFakeTimers();
    let held: Promise<void> | undefined;
    const seen: string[] = [];
    const proof = proofOf(
      async (bytes, signal) => {
        seen.push(proof.state);
        await held;
        return honest(bytes, signal);
      },
      () => Date.now(),
    );
    await proof.prove();
    const before = proof.standing;
    const { promise, resolve } = Promise.withResolvers<void>();
    held = promise;
    const run = proof.prove();
    proof.suspend(60_000, "too many scans failed");
    expect(before?.lost.aborted).toBe(true);
    resolve();
    await run;
    expect([proof.state, proof.standing, proof.problem]).toEqual(["suspended", undefined, "antivirus: too many scans failed"]);
    // What it said before counts all the same.
    expect(proof.upholds({ tag: "t", at: 0 }, "clean")).toBe(true);
    await proof.renew(SIGNAL);
    proof.suspect();
    seen.length = 0;
    await vi.advanceTimersByTimeAsync(59_999);
    expect([proof.state, seen]).toEqual(["suspended", []]);
    await vi.advanceTimersByTimeAsync(1);
    expect([proof.state, seen[0]]).toEqual(["up", "probed"]);
  });

  it("is probed at once when there is nobody else", async () => {
    const proof = proofOf(honest, () => 1000);
    await proof.prove();
    proof.suspend(3_600_000, "too many scans failed");
    await proof.renew(SIGNAL, { needed: true });
    expect(proof.state).toBe("up");
  });

  it("and needed while its canaries have only just failed, is tried again all the same", async () => {
    vi.useFakeTimers();
    let answer: Send = honest;
    const proof = proofOf(
      (bytes, signal) => answer(bytes, signal),
      () => Date.now(),
    );
    await proof.prove();
    const { promise: held, resolve } = Promise.withResolvers<void>();
    answer = async () => {
      await held;
      return { outcome: "unreachable", why: "gone" };
    };
    const run = proof.prove();
    proof.suspend(60_000, "too many scans failed");
    resolve();
    await run;
    await proof.renew(SIGNAL, { needed: true });
    answer = honest;
    await vi.advanceTimersByTimeAsync(1_000);
    expect(proof.state).toBe("up");
  });

  it("is down when it does not pass after the pause", async () => {
    vi.useFakeTimers();
    let answer: Send = honest;
    const proof = proofOf(
      (bytes, signal) => answer(bytes, signal),
      () => Date.now(),
    );
    await proof.prove();
    proof.suspend(5_000, "too many scans failed");
    answer = () => ({ outcome: "unreachable", why: "gone" });
    await vi.advanceTimersByTimeAsync(5_000);
    expect([proof.state, proof.standing]).toEqual(["down", undefined]);
    answer = honest;
    await vi.advanceTimersByTimeAsync(15_000);
    expect(proof.state).toBe("up");
  });
});

describe("a service that keeps scans waiting", () => {
  it.each([
    [10_000, {}],
    [500, { silence: 500 }],
  ])("and is silent to its canaries is down after %i ms, long before their timeout", async (silence, more) => {
    const { proof } = await stuck(more);
    expect(proof.stuck).toBe(true);
    await vi.advanceTimersByTimeAsync(silence - 1);
    expect(proof.state).toBe("up");
    await vi.advanceTimersByTimeAsync(1);
    expect([proof.state, proof.problem]).toEqual(["down", "antivirus: its canaries were not answered in time"]);
  });

  it("but answers others is busy: its canaries get all of their time", async () => {
    const { proof, answer } = await stuck();
    for (let seconds = 0; seconds < 24; seconds += 8) {
      await vi.advanceTimersByTimeAsync(8_000);
      proof.answered();
    }
    expect(proof.state).toBe("up");
    answer();
    await vi.advanceTimersByTimeAsync(0);
    expect([proof.state, proof.stuck]).toEqual(["up", false]);
  });

  it("is no other than one that is slow with its canaries, as long as it keeps none waiting", async () => {
    vi.useFakeTimers();
    const proof = proofOf(
      async (bytes, signal) => {
        if (bytes.equals(EICAR)) await new Promise((resolve) => setTimeout(resolve, 20_000));
        signal.throwIfAborted();
        return honest(bytes, signal);
      },
      () => Date.now(),
    );
    const run = proof.prove();
    await vi.advanceTimersByTimeAsync(20_000);
    await run;
    expect(proof.state).toBe("up");
  });

  it("is down after their timeout, whatever else it answers", async () => {
    const { proof } = await stuck();
    for (let seconds = 0; seconds < 32; seconds += 8) {
      await vi.advanceTimersByTimeAsync(8_000);
      proof.answered();
    }
    expect(proof.standing).toBeUndefined();
    expect(proof.problem).toContain("not answered in time");
  });
});
