import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { describe, expect, it } from "vitest";
import { Connection } from "../../../icap/client/connection.ts";
import { exchange } from "../../../icap/client/exchange.ts";
import { DEFAULT_LIMITS } from "../../../icap/index.ts";
import { CLEAN, withBody } from "../support/scripted-server.ts";

/** A socket whose system takes everything but what holds `stuck`. */
class FullSocket extends Duplex {
  readonly #stuck: string;

  constructor(stuck: string) {
    super({ decodeStrings: false });
    this.#stuck = stuck;
  }

  override _read(): void {
    // Bytes come when the test pushes them.
  }

  override _write(chunk: unknown, _: BufferEncoding, taken: () => void): void {
    if (!String(chunk).includes(this.#stuck)) taken();
  }

  setTimeout(): this {
    return this;
  }
}

async function sentWhen(stuck: string, preview: number | undefined, say = (socket: Duplex): unknown => socket.push(CLEAN)) {
  const socket = new FullSocket(stuck);
  const connection = new Connection(socket as unknown as Socket);
  const answer = exchange(
    connection,
    {
      heads: "heads",
      async *body() {
        yield Buffer.from("hello");
      },
      section: "res-body",
      size: 5,
      preview,
      take: undefined,
    },
    { timeouts: { connect: 1000, write: 1000, answer: 1000, idle: 1000, total: Infinity }, limits: DEFAULT_LIMITS },
    new AbortController().signal,
  );
  setTimeout(() => say(socket), 20);
  const { sent, reusable, headers } = await answer;
  return { sent, reusable, threat: headers.get("x-virus-id"), unasked: connection.unasked, usable: connection.usable };
}

describe("an answer that comes while the system has not taken", () => {
  it.each([
    ["the last chunk", "0\r\n\r\n", undefined],
    ["the last bytes", "hello", undefined],
    ["the preview's last chunk", "0\r\n\r\n", 4],
    ["the preview's bytes", "hell", 4],
  ])("%s speaks of a part, and its connection is at its end", async (_, stuck, preview) => {
    expect(await sentWhen(stuck, preview)).toMatchObject({ sent: "part", reusable: false, threat: undefined });
  });

  it.each([
    ["anything else", undefined, "all"],
    ["anything else, by a preview", 4, "preview"],
    ["anything else, by a preview of all", 5, "all"],
  ])("%s speaks of it", async (_, preview, sent) => {
    expect(await sentWhen("nothing like it", preview)).toMatchObject({ sent, reusable: true, threat: undefined, unasked: false });
  });

  it("and that is cut off behind its head still says what its head says", async () => {
    const page = withBody("ff\r\nhalf a page", "HTTP/1.1 403 Forbidden\r\n\r\n", "X-Virus-ID: Eicar\r\n");
    const cut = (socket: Duplex): void => {
      socket.push(page);
      // The next read is another one.
      setTimeout(() => socket.push(null), 20);
    };
    expect(await sentWhen("0\r\n\r\n", undefined, cut)).toMatchObject({ sent: "part", reusable: false, threat: "Eicar" });
  });
});

function twice(socket: Duplex): void {
  socket.push(CLEAN);
  socket.push(CLEAN);
}

describe("an answer with bytes at its heels that are read before anybody has seen it", () => {
  it("is the last one on its connection", async () => {
    expect(await sentWhen("nothing like it", undefined, twice)).toMatchObject({ sent: "all", unasked: true, usable: false });
  });
});
