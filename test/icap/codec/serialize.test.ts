import { describe, expect, it } from "vitest";
import { limitsFrom } from "../../../icap/codec/limits.ts";
import { serializeHead, serializeMessage } from "../../../icap/codec/serialize.ts";

describe("a message", () => {
  it("says where its parts begin", () => {
    const text = serializeMessage(
      "RESPMOD icap://a/b ICAP/1.0",
      [["Host", "a"]],
      [
        ["req-hdr", "GET / HTTP/1.1\r\n\r\n"],
        ["res-hdr", "HTTP/1.1 200 OK\r\n\r\n"],
      ],
      "res-body",
    );
    expect(text).toBe(
      "RESPMOD icap://a/b ICAP/1.0\r\nHost: a\r\nEncapsulated: req-hdr=0, res-hdr=18, res-body=37\r\n\r\n" +
        "GET / HTTP/1.1\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    );
  });

  it.each([
    ["a start line", () => serializeHead("GET /\r\nEvil: 1", [])],
    ["a name", () => serializeHead("GET /", [["Evil: 1\r\nA", "b"]])],
    ["an empty name", () => serializeHead("GET /", [["", "b"]])],
    ["a value with CRLF", () => serializeHead("GET /", [["A", "b\r\nEvil: 1"]])],
    ["a value with LF", () => serializeHead("GET /", [["A", "b\nEvil: 1"]])],
    ["a value that is not ASCII", () => serializeHead("GET /", [["A", "bĊc"]])],
  ])("can't be broken out of by %s", (_, make) => {
    expect(make).toThrow(TypeError);
  });
});

describe("limits", () => {
  it.each([{ headerBytes: 0 }, { headerCount: 1.5 }, { chunkSizeDigits: 14 }, { chunkLineBytes: Number.NaN }, { answerBodyBytes: -1 }])(
    "%o is refused",
    (limits) => {
      expect(() => limitsFrom(limits)).toThrow(TypeError);
    },
  );
});
