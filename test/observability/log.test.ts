import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import type { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { GatewayError } from "../../src/errors.ts";
import { type RequestFacts, createLogger, logRequest } from "../../src/observability/log.ts";

function capture(level: "info" | "error" = "info") {
  const text: string[] = [];
  const log = createLogger({ level, stream: { write: (line) => void text.push(line) } });
  return { log, text, lines: () => text.map((line) => JSON.parse(line) as Record<string, unknown>) };
}

const CLEAN: RequestFacts = {
  method: "GET",
  route: "download",
  status: 200,
  outcome: "ok",
  duration: 12.4,
  sent: 1234,
  media: { encrypted: false, serverName: "example.com", mediaId: "abc" },
  size: 1234,
  via: "scan",
  verdict: "clean",
  downloadMs: 3.6,
  scanMs: 8,
};

describe("the log", () => {
  it("is one JSON object a line, with level by name and time in ISO 8601", () => {
    const { log, text, lines } = capture();

    log.info("two\nlines");

    expect(text).toHaveLength(1);
    expect(text[0]).toMatch(/^[^\n]*\n$/);
    expect(lines()).toEqual([{ level: "info", time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/), msg: "two\nlines" }]);
  });

  it("leaves out what is below its level", () => {
    const { log, text } = capture("error");

    logRequest(log, CLEAN);

    expect(text).toEqual([]);
  });

  it.each(["authorization", "Authorization", "token", "access_token", "key", "k", "iv", "pickle_key", "password", "additional_headers"])(
    "never shows what stands under %s",
    (name) => {
      const { log, text } = capture();
      const secret = { [name]: "hunter2" };

      log
        .child({ [name.toLowerCase()]: "hunter2" })
        .info({ ...secret, deep: { deeper: [{ deepest: secret }] }, bare: Object.assign(Object.create(null) as object, secret) }, "hi");

      log.info(secret, "alone");

      expect(text).toHaveLength(2);
      for (const line of text) expect(line).toContain("[redacted]");
      expect(text.join("")).not.toContain("hunter2");
    },
  );

  it("tells the time of each line to the millisecond", () => {
    vi.useFakeTimers({ toFake: ["Date"] });
    onTestFinished(() => void vi.useRealTimers());
    const { log, lines } = capture();
    const times = ["2026-03-01T00:00:00.000Z", "2026-03-01T00:00:00.007Z", "2026-03-01T00:00:00.999Z", "2026-03-01T00:00:01.010Z"];

    for (const time of times) {
      vi.setSystemTime(new Date(time));
      log.info("tick");
    }

    expect(lines().map((line) => line["time"])).toEqual(times);
  });

  it("shows a stack only of what nobody foresaw, and then of what went wrong itself", () => {
    const { log, lines } = capture();
    log.warn({ err: new GatewayError("homeserver_failed", { cause: new Error("refused") }) }, "m");
    log.warn({ err: new GatewayError("internal", { cause: new TypeError("a bug") }) }, "m");
    expect(JSON.stringify(lines()[0])).not.toContain("log.test.ts");
    expect(lines()[1]).toMatchObject({
      err: { code: "internal", cause: { type: "TypeError", stack: expect.stringContaining("log.test.ts") } },
    });
  });

  it("shows of an error its code, text and causes, and nothing that a library hung on it", () => {
    const { log, text, lines } = capture();
    const socket = Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED", request: { headers: "hunter2" } });

    log.warn({ err: new GatewayError("homeserver_failed", { detail: "no answer", cause: socket }) }, "failed");

    expect(lines()[0]).toMatchObject({
      err: {
        type: "GatewayError",
        code: "homeserver_failed",
        message: "homeserver_failed: no answer",
        cause: { type: "Error", code: "ECONNREFUSED", message: "connect ECONNREFUSED" },
      },
    });
    expect(text.join("")).not.toContain("hunter2");
  });

  it("bounds what peers have a say in, and survives what holds itself", () => {
    const { log, text } = capture();
    const endless: Record<string, unknown> = {};
    endless["self"] = endless;
    const error = new Error("x".repeat(1_000_000));
    error.cause = error;

    log.warn({ endless, err: error }, "hostile");
    logRequest(log, { ...CLEAN, verdict: "infected", threat: "y".repeat(1_000_000) });

    expect(text).toHaveLength(2);
    expect(text.join("").length).toBeLessThan(20_000);
  });
});

describe("standard output", () => {
  const LOG = new URL("../../src/observability/log.ts", import.meta.url).href;

  /** A process that writes two lines, and then does this. */
  function writer(then: string): ChildProcessByStdio<null, Readable, null> {
    const code = `import { createLogger } from ${JSON.stringify(LOG)}; const log = createLogger({ level: "info" }); log.info("one"); log.info("two"); ${then}`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", code], { stdio: ["ignore", "pipe", "inherit"] });
    onTestFinished(() => void child.kill("SIGKILL"));
    return child;
  }

  it.each([
    ["comes to its end", ""],
    ["exits", "process.exit(0);"],
    ["fails", "process.on('uncaughtException', () => process.exit(0)); throw new Error('x');"],
  ])("has every line of a process that %s", async (_how, then) => {
    const lines = (await text(writer(then).stdout)).trim().split("\n");
    expect(lines.map((line) => (JSON.parse(line) as { msg: string }).msg)).toEqual(["one", "two"]);
  });

  it("has a line soon, though no other comes", async () => {
    const [bytes] = (await once(writer("setInterval(() => undefined, 60_000);").stdout, "data")) as [Buffer];
    expect(bytes.toString()).toContain("one");
  });
});

describe("the line of a request", () => {
  it("tells outcome, sizes, durations and verdict", () => {
    const { log, lines } = capture();

    logRequest(log, CLEAN);

    expect(lines()).toEqual([
      {
        level: "info",
        time: expect.any(String),
        msg: "request",
        method: "GET",
        route: "download",
        status: 200,
        outcome: "ok",
        sent: 1234,
        encrypted: false,
        serverName: "example.com",
        mediaId: "abc",
        size: 1234,
        via: "scan",
        verdict: "clean",
        durationMs: 12,
        downloadMs: 4,
        scanMs: 8,
      },
    ]);
  });

  it("never names encrypted media, even when the name is at hand", () => {
    const { log, text, lines } = capture();
    const media = { encrypted: true, serverName: "example.com", mediaId: "hunter2" } as const;

    logRequest(log, { ...CLEAN, route: "download_encrypted", media });

    expect(lines()[0]).toMatchObject({ encrypted: true });
    expect(text.join("")).not.toMatch(/hunter2|example\.com/);
  });

  it.each([
    ["a virus", { status: 403, outcome: "infected", verdict: "infected" }, "warn"],
    ["a scanner that is away", { status: 503, outcome: "scanner_unavailable" }, "warn"],
    ["a client's mistake", { status: 400, outcome: "malformed_request" }, "info"],
  ])("for %s is marked %s", (_, facts, level) => {
    const { log, lines } = capture();

    logRequest(log, { method: "GET", route: "scan", duration: 1, sent: 0, ...facts });

    expect(lines()[0]).toMatchObject({ level, outcome: facts.outcome });
  });
});
