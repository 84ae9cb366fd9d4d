import { describe, expect, it } from "vitest";
import { recorded } from "../icap/support/answers.ts";
import { CLEAN, type Peer, scriptedServer } from "../icap/support/scripted-server.ts";
import { scannerOf, subject } from "../support/antivirus.ts";

const FIRST = Buffer.from("the first file");
const SECOND = Buffer.from("the second file");
const TAG = 'ISTag: "tag-1"\r\n';

/** Answers twice: the second time, late, on a connection that may be at the next file by then. */
function answersTwice({ socket, received }: Peer): void {
  const body = received();
  const clean = CLEAN.replace("\r\n\r\n", `\r\n${TAG}\r\n`);
  const infected = recorded("infected")
    .toString("latin1")
    .replace(/ISTag: .*\r\n/, TAG);
  if (body.includes(FIRST.toString("latin1"))) {
    socket.write(clean);
    setTimeout(() => socket.write(clean), 100);
  } else if (body.includes(SECOND.toString("latin1"))) setTimeout(() => socket.write(infected, "latin1"), 400);
  else socket.write(body.includes("harmless") ? clean : infected, "latin1");
}

describe("a server whose late second answer is taken for the answer to the next file", () => {
  it("is found out by the answer that nobody asked for then, and what it called clean before is void", async () => {
    await using server = await scriptedServer({ complete: answersTwice });
    const { scanner, entries } = await scannerOf([server.url], { canaries: ["plain"] });
    await using _scanner = scanner;
    await scanner.start();
    const signal = AbortSignal.timeout(20_000);
    await scanner.scan(subject(FIRST), signal);
    const verdict = await scanner.scan(subject(SECOND), signal);
    expect(verdict.outcome).toBe("clean");
    expect(scanner.upholds(verdict.stamp, "clean")).toBe(true);
    await expect.poll(() => scanner.upholds(verdict.stamp, "clean"), { timeout: 5000 }).toBe(false);
    expect(entries).toContainEqual({ what: "down", why: expect.stringContaining("nobody had asked for") as unknown });
  });
});
