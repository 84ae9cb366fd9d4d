import { afterEach, describe, expect, it } from "vitest";
import { GatewayError } from "../../src/errors.ts";
import { createTypeDetector, type TypeDetector, type TypeDetectorOptions } from "../../src/media/mime.ts";

/** A worker that does what the first letter says, and otherwise answers with the text and its own start time. */
const FAULTY = `
  import { parentPort, threadId } from "node:worker_threads";
  parentPort.on("message", (bytes) => {
    const text = Buffer.from(bytes).toString();
    if (text === "hang") for (;;);
    if (text === "exit") process.exit(3);
    if (text === "throw") throw new Error("trap");
    parentPort.postMessage({ mime: "test/" + text, extension: String(threadId) });
  });
  parentPort.postMessage("ready");
`;

const opened: TypeDetector[] = [];

function detectorOn(script: string, options: TypeDetectorOptions = {}): TypeDetector {
  const detector = createTypeDetector({ worker: new URL(`data:text/javascript,${encodeURIComponent(script)}`), ...options });
  opened.push(detector);
  return detector;
}

afterEach(async () => {
  await Promise.all(opened.splice(0).map((detector) => detector[Symbol.asyncDispose]()));
});

async function outcome(detection: Promise<{ mime: string }>): Promise<string> {
  return detection.then(
    ({ mime }) => mime,
    (error: unknown) => (error instanceof GatewayError ? error.code : String(error)),
  );
}

describe("a worker that fails over one file", () => {
  it.each(["hang", "exit", "throw"])("(%s) fails that one alone", async (fault) => {
    const detector = detectorOn(FAULTY, { timeLimit: 300 });
    const outcomes = ["a", fault, "b", fault, "c"].map((text) => outcome(detector.detect(Buffer.from(text))));
    expect(await Promise.all(outcomes)).toEqual(["test/a", "scanner_unavailable", "test/b", "scanner_unavailable", "test/c"]);
  });

  it("is replaced by another, and only then", async () => {
    const detector = detectorOn(FAULTY);
    const thread = async (): Promise<string> => (await detector.detect(Buffer.from("x"))).extension;
    const first = await thread();
    expect(await thread()).toBe(first);
    expect(await outcome(detector.detect(Buffer.from("throw")))).toBe("scanner_unavailable");
    expect(await thread()).not.toBe(first);
  });
});

describe("a worker that does not start", () => {
  it.each([
    ["ends", "process.exit(1)"],
    ["throws", "throw new Error('no')"],
    ["can't be parsed", "this is no script"],
    ["never gets ready", "setInterval(() => {}, 1000)"],
  ])("(it %s) fails all who wait, and who comes later", async (_name, script) => {
    const detector = detectorOn(script, { startLimit: 1000 });
    const outcomes = [1, 2, 3].map(() => outcome(detector.detect(Buffer.from("a"))));
    expect(await Promise.all(outcomes)).toEqual(Array.from({ length: 3 }, () => "scanner_unavailable"));
    expect(await outcome(detector.detect(Buffer.from("a")))).toBe("scanner_unavailable");
  });
});

describe("the queue", () => {
  it("is bounded", async () => {
    const detector = detectorOn(FAULTY, { maxQueued: 2 });
    const outcomes = ["a", "b", "c"].map((text) => outcome(detector.detect(Buffer.from(text))));
    expect(await Promise.all(outcomes)).toEqual(["test/a", "test/b", "scanner_unavailable"]);
    expect(await outcome(detector.detect(Buffer.from("d")))).toBe("test/d");
  });
});

describe("disposal", () => {
  it("refuses who waits and who comes later", async () => {
    const detector = detectorOn(FAULTY);
    expect(await outcome(detector.detect(Buffer.from("a")))).toBe("test/a");
    const outcomes = ["hang", "b"].map((text) => outcome(detector.detect(Buffer.from(text))));
    await detector[Symbol.asyncDispose]();
    expect(await Promise.all(outcomes)).toEqual(["scanner_unavailable", "scanner_unavailable"]);
    expect(await outcome(detector.detect(Buffer.from("c")))).toBe("scanner_unavailable");
  });

  it("of a detector that was never used starts nothing", async () => {
    await detectorOn("process.exit(1)")[Symbol.asyncDispose]();
  });
});
