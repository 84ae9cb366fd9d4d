import { describe, expect, it } from "vitest";
import { AnswerReader } from "../../bench/answer-reader.ts";

const PLAIN = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
const EMPTY = "HTTP/1.1 401 Unauthorized\r\ncontent-length:0\r\n\r\n";

/** What is read of pieces that all come in one buffer, which each overwrites. */
function read(pieces: readonly string[]): { ends: boolean[]; body: string; reader: AnswerReader } {
  const buffer = Buffer.alloc(4096);
  let body = "";
  const reader = new AnswerReader((bytes) => (body += bytes.toString("latin1")));
  const ends = pieces.map((piece) => reader.push(buffer.subarray(0, buffer.write(piece, "latin1"))));
  return { ends, body, reader };
}

describe("an answer", () => {
  it.each([
    ["with a length", PLAIN, 200, "hello", false],
    ["in chunks", CHUNKED, 200, "hello", true],
    ["without a body", EMPTY, 401, "", false],
  ])("%s is read to its end, wherever it is cut", (_what, answer, status, content, closes) => {
    for (let cut = 1; cut < answer.length; cut += 1) {
      const { ends, body, reader } = read([answer.slice(0, cut), answer.slice(cut)]);
      expect({ cut, ends, body, status: reader.status, closes: reader.closes }).toEqual({
        cut,
        ends: [false, true],
        body: content,
        status,
        closes,
      });
    }
  });

  it("is followed by the next one on the same connection", () => {
    const { ends, body, reader } = read([PLAIN, EMPTY, CHUNKED]);
    expect([ends, body, reader.status]).toEqual([[true, true, true], "hellohello", 200]);
  });

  it.each([
    ["of another protocol", "SSH-2.0-x\r\n\r\n"],
    ["without a length", "HTTP/1.1 200 OK\r\n\r\n"],
    ["longer than it says", `${PLAIN}!`],
    ["longer than its last chunk", `${CHUNKED}!`],
    ["with a head that never ends", `HTTP/1.1 200 OK\r\nX: ${"x".repeat(4000)}`],
  ])("%s is none", (_what, answer) => {
    expect(() => read([answer, ...Array.from({ length: 20 }, () => "x".repeat(4000))])).toThrow();
  });
});
