import { afterEach, describe, expect, it, vi } from "vitest";
import { Channel } from "../../src/cluster/channel.ts";
import { pipe } from "./pipe.ts";

afterEach(() => {
  vi.useRealTimers();
});

const MIB = 1024 * 1024;

describe("a channel", () => {
  it("brings each question its own answer, in whatever order they come", async () => {
    const [here, there] = pipe();
    const asking = new Channel(here);
    const answers = new Map<unknown, (answer: unknown) => void>();
    void new Channel(there, { answer: (question) => new Promise((resolve) => answers.set(question, resolve)) });
    const asked = [asking.ask("one", 60_000), asking.ask("two", 60_000)];
    await expect.poll(() => answers.size).toBe(2);
    answers.get("two")?.("second");
    answers.get("one")?.("first");
    expect(await Promise.all(asked)).toEqual(["first", "second"]);
  });

  it("waits no longer than it is told, and takes no late answer for another's", async () => {
    vi.useFakeTimers();
    const [here, there] = pipe();
    const asking = new Channel(here);
    const answers: ((answer: unknown) => void)[] = [];
    void new Channel(there, { answer: () => new Promise((resolve) => answers.push(resolve)) });
    const first = asking.ask("first", 250);
    await vi.advanceTimersByTimeAsync(251);
    expect(await first).toBeUndefined();
    const second = asking.ask("second", 250);
    await vi.advanceTimersByTimeAsync(1);
    answers[0]?.("the first one's");
    answers[1]?.("the second one's");
    await vi.advanceTimersByTimeAsync(1);
    expect(await second).toBe("the second one's");
  });

  it("counts the time from when the question goes out, however long other work takes before", async () => {
    const [here, there] = pipe();
    const asking = new Channel(here);
    void new Channel(there, { answer: (question) => question });
    const asked = asking.ask("question", 50);
    const until = performance.now() + 100;
    while (performance.now() < until);
    expect(await asked).toBe("question");
  });

  it("leaves a question without an answer that can't be answered, and goes on", async () => {
    vi.useFakeTimers();
    const [here, there] = pipe();
    const asking = new Channel(here);
    void new Channel(there, {
      answer(question) {
        if (question === "bad") throw new TypeError("what is that?");
        return question === "rejected" ? Promise.reject(new TypeError("no")) : question;
      },
    });
    const asked = ["bad", "rejected", "good"].map((question) => asking.ask(question, 250));
    await vi.advanceTimersByTimeAsync(251);
    expect(await Promise.all(asked)).toEqual([undefined, undefined, "good"]);
  });

  it("sends in one message what is said in one turn", async () => {
    const [here, there] = pipe();
    const channel = new Channel(here);
    void new Channel(there, { answer: (question) => question });
    channel.tell("news");
    expect(await Promise.all([channel.ask("one", 1000), channel.ask("two", 1000)])).toEqual(["one", "two"]);
    expect([here.sent.length, there.sent.length]).toEqual([1, 1]);
    expect(await channel.ask("three", 1000)).toBe("three");
    expect(here.sent.length).toBe(2);
  });

  it.each([
    [null],
    ["text"],
    [7],
    [{}],
    [[null]],
    [["text"]],
    [[[{ tell: "deep" }]]],
    [{ ask: 1 }],
    [{ answer: 1 }],
    [{ answer: "1", body: 1 }],
    [{ ask: {}, body: 1 }],
  ])("takes %j from its pipe for nothing", async (garbage) => {
    const [here, there] = pipe();
    const heard: unknown[] = [];
    const channel = new Channel(there, { answer: () => 1, hear: (news) => heard.push(news) });
    here.send(garbage, () => undefined);
    here.send([garbage, { tell: "news" }], () => undefined);
    await expect.poll(() => heard).toEqual(["news"]);
    await channel.flush(1000);
    expect(there.sent).toEqual([]);
  });

  it("holds no more than a bound for a pipe that is stuck, and says when there is room again", async () => {
    const [here, there] = pipe();
    const heard: unknown[] = [];
    let drained = 0;
    const channel = new Channel(here, { drained: () => (drained += 1) });
    void new Channel(there, { hear: (news) => heard.push(news) });
    here.stuck = true;
    const told = Array.from({ length: 30 }, () => channel.tell({ text: "x".repeat(MIB) }));
    expect(told.filter(Boolean).length).toBeLessThan(12);
    expect(told.at(-1)).toBe(false);
    expect(await channel.ask("anything", 60_000)).toBeUndefined();
    expect(drained).toBe(0);
    here.stuck = false;
    await channel.flush(60_000);
    expect(drained).toBe(1);
    expect(heard.length).toBe(told.filter(Boolean).length);
    expect(channel.tell("again")).toBe(true);
  });

  it("holds no more than a bound of questions without an answer", async () => {
    vi.useFakeTimers();
    const [here] = pipe();
    const channel = new Channel(here);
    const asked = Array.from({ length: 6_000 }, () => channel.ask("anything", 250));
    await vi.advanceTimersByTimeAsync(1);
    expect((here.sent[0] as unknown[]).length).toBeLessThan(5_000);
    expect(await asked.at(-1)).toBeUndefined();
    await vi.advanceTimersByTimeAsync(251);
    void channel.ask("anything", 250);
    await vi.advanceTimersByTimeAsync(1);
    expect(here.sent).toHaveLength(2);
  });

  it("is not disturbed by a pipe that is gone", async () => {
    vi.useFakeTimers();
    const gone = {
      send: () => {
        throw new Error("the channel is closed");
      },
      listen: () => undefined,
    };
    const channel = new Channel(gone);
    channel.tell("news");
    const asked = channel.ask("anything", 250);
    // Not at the end of its time: nobody has got it.
    await vi.advanceTimersByTimeAsync(1);
    expect(await asked).toBeUndefined();
    await channel.flush(1000);
  });
});
