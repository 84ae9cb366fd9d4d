import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Crew, type WorkerProcess } from "../../src/cluster/crew.ts";
import { Channel } from "../../src/cluster/channel.ts";
import type { Assignment, PrimaryNews, WorkerNews } from "../../src/cluster/messages.ts";
import { type PipeEnd, pipe } from "./pipe.ts";

const ADDRESS = { host: "127.0.0.1", port: 8080 };
const MINUTE = 60_000;

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

/** A process that does what a test says. */
class FakeProcess implements WorkerProcess {
  readonly pid = 4711;
  readonly signals: string[] = [];
  assignment: Assignment | undefined;
  readonly #near: PipeEnd;
  readonly #channel: Channel;
  #ended: (how: string, orderly: boolean) => void = () => undefined;

  constructor() {
    const [near, far] = pipe();
    this.#near = near;
    this.#channel = new Channel(far, {
      hear: (message) => {
        const news = message as PrimaryNews;
        if (news.news === "assignment") this.assignment = news.assignment;
      },
    });
    this.tell({ news: "ready" });
  }

  send: PipeEnd["send"] = (message, sent) => this.#near.send(message, sent);
  listen: PipeEnd["listen"] = (listener) => this.#near.listen(listener);

  ended(listener: (how: string, orderly: boolean) => void): void {
    this.#ended = listener;
  }

  kill(signal: string): void {
    this.signals.push(signal);
  }

  tell(news: WorkerNews): void {
    this.#channel.tell(news);
  }

  async serve(): Promise<void> {
    this.tell({ news: "listening", address: ADDRESS });
    await vi.advanceTimersByTimeAsync(1);
  }

  async die(how = "was ended by SIGKILL"): Promise<void> {
    this.#ended(how, how === "ended with status 0");
    await vi.advanceTimersByTimeAsync(1);
  }
}

function crewOf(size: number): { crew: Crew; forked: FakeProcess[]; gone: number[]; replaced: unknown[] } {
  const forked: FakeProcess[] = [];
  const gone: number[] = [];
  const replaced: unknown[] = [];
  const crew = new Crew({
    size,
    fork: () => {
      const child = new FakeProcess();
      forked.push(child);
      return child;
    },
    assign: (worker) => ({ news: "assignment", assignment: worker as Assignment }),
    answer: () => undefined,
    hear: () => undefined,
    gone: ({ number }) => gone.push(number),
    log: { info: () => undefined, warn: () => undefined, error: (details) => replaced.push(details) },
  });
  return { crew, forked, gone, replaced };
}

async function serving(size: number): Promise<ReturnType<typeof crewOf>> {
  const made = crewOf(size);
  const started = made.crew.start();
  await vi.advanceTimersByTimeAsync(1);
  for (const child of made.forked) await child.serve();
  await started;
  return made;
}

describe("workers", () => {
  it("have started when all of them serve", async () => {
    const { crew, forked } = crewOf(2);
    let address: unknown;
    void crew.start().then((found) => (address = found));
    await vi.advanceTimersByTimeAsync(1);
    expect(forked.map(({ assignment }) => assignment)).toEqual([
      { number: 1, replaces: false },
      { number: 2, replaces: false },
    ]);
    await forked[1]?.serve();
    expect(address).toBeUndefined();
    await forked[0]?.serve();
    expect(address).toEqual(ADDRESS);
    expect(crew.serving.map(({ number }) => number)).toEqual([1, 2]);
  });

  it("have not started when one of them can't, for the reason that it tells, or that shows", async () => {
    const told = crewOf(2);
    const reason = expect(told.crew.start()).rejects.toThrow(/^the port is taken$/);
    await vi.advanceTimersByTimeAsync(1);
    told.forked[1]?.tell({ news: "failed", reason: "the port is taken" });
    await vi.advanceTimersByTimeAsync(1);
    await told.forked[1]?.die("ended with status 1");
    await reason;

    const mute = crewOf(2);
    const shown = expect(mute.crew.start()).rejects.toThrow(/^worker 1 was ended by SIGKILL$/);
    await vi.advanceTimersByTimeAsync(1);
    await mute.forked[0]?.die();
    await shown;
  });

  it("are replaced: at once, then later each time that they die young, and at once again after a steady time", async () => {
    const { crew, forked, gone } = await serving(2);
    let expected = 2;
    for (const pause of [0, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]) {
      await forked.at(-1)?.die();
      expect(crew.problems).toEqual(["worker 2: was ended by SIGKILL; it is being replaced"]);
      if (pause > 0) {
        await vi.advanceTimersByTimeAsync(pause - 10);
        expect(forked.length).toBe(expected);
      }
      await vi.advanceTimersByTimeAsync(10);
      expected += 1;
      expect(forked.length).toBe(expected);
      await forked.at(-1)?.serve();
      expect(forked.at(-1)?.assignment).toEqual({ number: 2, replaces: true });
      expect(crew.problems).toEqual([]);
    }
    await vi.advanceTimersByTimeAsync(MINUTE);
    await forked.at(-1)?.die("ended with status 0");
    await vi.advanceTimersByTimeAsync(10);
    expect(forked.length).toBe(expected + 1);
    expect(crew.replaced).toBe(9);
    expect(gone).toEqual(Array.from({ length: 9 }, () => 2));
  });

  it("of which one fails to start again and again are the end of all, which says why", async () => {
    const { crew, forked } = await serving(2);
    let failed: Error | undefined;
    void crew.failed.then((error) => (failed = error));
    await forked[0]?.die();
    for (let tries = 0; tries < 8; tries += 1) {
      expect(failed).toBeUndefined();
      await vi.advanceTimersByTimeAsync(MINUTE);
      forked.at(-1)?.tell({ news: "failed", reason: "no such file" });
      await vi.advanceTimersByTimeAsync(1);
      await forked.at(-1)?.die("ended with status 1");
    }
    expect(failed?.message).toBe("worker 1 has failed to start 8 times: no such file");
    const tried = forked.length;
    await vi.advanceTimersByTimeAsync(10 * MINUTE);
    expect(forked.length).toBe(tried);
  });

  it("that start in between have not failed again and again", async () => {
    const { crew, forked } = await serving(1);
    let failed = false;
    void crew.failed.then(() => (failed = true));
    for (let tries = 1; tries <= 20; tries += 1) {
      await forked.at(-1)?.die();
      await vi.advanceTimersByTimeAsync(MINUTE);
      if (tries % 5 === 0) await forked.at(-1)?.serve();
    }
    expect(failed).toBe(false);
  });

  it("that the system can't start are like any that die", async () => {
    let failing = true;
    const crew = new Crew({
      size: 1,
      fork: () => {
        if (failing) throw new Error("EAGAIN");
        return new FakeProcess();
      },
      assign: (worker) => ({ news: "assignment", assignment: worker as Assignment }),
      answer: () => undefined,
      hear: () => undefined,
      gone: () => undefined,
      log: { info: () => undefined, warn: () => undefined, error: () => undefined },
    });
    await expect(crew.start()).rejects.toThrow("worker 1 could not be started (EAGAIN)");
    failing = false;
    expect(await crew.stop()).toBe(true);
  });
});

describe("workers that are to end", () => {
  it("are told so, have ended when the last one has, and are not replaced", async () => {
    const { crew, forked } = await serving(2);
    let orderly: boolean | undefined;
    void crew.stop().then((all) => (orderly = all));
    expect(forked.map(({ signals }) => signals)).toEqual([["SIGTERM"], ["SIGTERM"]]);
    await forked[0]?.die("ended with status 0");
    expect(orderly).toBeUndefined();
    await forked[1]?.die("ended with status 0");
    expect(orderly).toBe(true);
    await vi.advanceTimersByTimeAsync(MINUTE);
    expect(forked.length).toBe(2);
  });

  it("have not ended in order if one of them fails at it", async () => {
    const { crew, forked } = await serving(2);
    const stopped = crew.stop();
    await forked[0]?.die("ended with status 1");
    await forked[1]?.die("ended with status 0");
    expect(await stopped).toBe(false);
  });

  it("are not waited for where there are none, and none are started any more", async () => {
    const { crew, forked } = await serving(1);
    await forked[0]?.die();
    await vi.advanceTimersByTimeAsync(10);
    await forked[1]?.die();
    expect(await crew.stop()).toBe(true);
    await vi.advanceTimersByTimeAsync(MINUTE);
    expect(forked.length).toBe(2);
  });
});
