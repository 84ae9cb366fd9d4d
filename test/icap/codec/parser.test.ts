import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { RECORDED, parse, recorded } from "../support/answers.ts";

const answer = (...lines: string[]): Buffer => Buffer.from(lines.join("\r\n"), "latin1");
const HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n";
const inChunks = (chunks: string): Buffer =>
  answer("ICAP/1.0 200 OK", `Encapsulated: res-hdr=0, res-body=${HEAD.length}`, "", `${HEAD}${chunks}`);

const firstValue = (bytes: Buffer): string | undefined =>
  parse([answer("ICAP/1.0 204 OK", "X-Virus-ID: "), bytes, answer("", "", "")]).fields[0]?.[1];
const thrown = (bytes: Buffer): string => {
  try {
    parse([bytes]);
  } catch (error) {
    return String(error);
  }
  return "";
};
const endless = (start: string, piece: string): Iterable<Buffer> => ({
  *[Symbol.iterator]() {
    yield Buffer.from(start);
    for (let sent = 0; sent < 10_000_000; sent += piece.length) yield Buffer.from(piece);
  },
});
const headOf = (count: number): Buffer => answer("ICAP/1.0 204 OK", ...Array<string>(count).fill("A: b"), "", "");

describe("an ICAP answer", () => {
  it.each(RECORDED)("is read the same at every split point: $name", ({ bytes }) => {
    const whole = parse([bytes]);
    expect(whole.complete).toBe(true);
    expect(whole.read).toBe(bytes.length);
    for (let at = 0; at <= bytes.length; at++) {
      expect(parse([bytes.subarray(0, at), bytes.subarray(at)]), `split at ${at}`).toEqual(whole);
    }
    expect(parse(Array.from(bytes, (byte) => Uint8Array.of(byte)))).toEqual(whole);
  });

  it.each(RECORDED)("is not complete one byte before its end: $name", ({ bytes }) => {
    expect(parse([bytes.subarray(0, -1)]).complete).toBe(false);
  });

  it.each(RECORDED)("is read the same in any pieces, and nothing behind it is taken: $name", ({ bytes }) => {
    const whole = parse([bytes]);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 200 })), fc.uint8Array({ maxLength: 20 }), (sizes, excess) => {
        const all = Buffer.concat([bytes, excess]);
        const pieces = [];
        let at = 0;
        for (const size of sizes) pieces.push(all.subarray(at, (at += size)));
        expect(parse([...pieces, all.subarray(at)])).toEqual(whole);
      }),
      { numRuns: 50 },
    );
  });

  it("gives what c-icap says of an infected file", () => {
    const found = parse([recorded("infected")]);
    const fields = new Map(found.fields);
    expect(found.status).toBe(200);
    expect(fields.get("x-infection-found")).toBe("Type=0; Resolution=2; Threat=Eicar-Test-Signature.UNOFFICIAL;");
    expect(fields.get("x-violations-found")).toBe("1\n-\nEicar-Test-Signature.UNOFFICIAL\n0\n0");
    expect(found.http).toMatchObject({ startLine: "HTTP/1.0 403 Forbidden", status: 403 });
    expect(found.body).toHaveLength(0x1f6);
    expect(found.body.endsWith("</html>\n\0\0")).toBe(true);
  });

  it("may name its fields in any case, leave out blanks and have Encapsulated anywhere", () => {
    const found = parse([answer("ICAP/1.0 200 OK", "encapsulated:null-body=0", "iStAg:abc", "X-Empty:", "", "")]);
    expect(found.fields).toEqual([
      ["encapsulated", "null-body=0"],
      ["istag", "abc"],
      ["x-empty", ""],
    ]);
    expect(found.complete).toBe(true);
  });

  it("has texts in UTF-8 or Latin-1", () => {
    expect(firstValue(Buffer.from("häßlich", "utf8"))).toBe("häßlich");
    expect(firstValue(Buffer.from("häßlich", "latin1"))).toBe("häßlich");
  });

  it("may have chunk extensions, leading zeros and a trailer", () => {
    const found = parse([inChunks('0005;a=b\r\nhello\r\n6 ; c="d"\r\n world\r\n0;x\r\nX-Virus-ID: Late\r\nX-More: 1\r\n\r\n')]);
    expect(found).toMatchObject({ body: "hello world", complete: true });
    expect(found.trailer).toEqual([
      ["x-virus-id", "Late"],
      ["x-more", "1"],
    ]);
  });

  it("may encapsulate a head with bare LFs, and a request's beside it", () => {
    const req = "GET / HTTP/1.1\nHost: a\n\n";
    const res = "HTTP/1.1 403 No\nA: b\n\n";
    const found = parse([
      answer("ICAP/1.0 200 OK", `Encapsulated: req-hdr=0, res-hdr=${req.length}, null-body=${req.length + res.length}`, "", req + res),
    ]);
    expect(found).toMatchObject({ request: "GET / HTTP/1.1", http: { status: 403, fields: [["a", "b"]] }, complete: true });
  });
});

describe("a malformed answer is refused", () => {
  const encapsulated = (value: string, rest = HEAD): Buffer => answer("ICAP/1.0 200 OK", `Encapsulated: ${value}`, "", rest);
  const cases: Record<string, Buffer> = {
    "HTTP in place of ICAP": answer("HTTP/1.1 200 OK", "", ""),
    "an empty line first": answer("", "ICAP/1.0 204 OK", "", ""),
    "a status of two digits": answer("ICAP/1.0 20 OK", "", ""),
    "a status out of range": answer("ICAP/1.0 999 OK", "", ""),
    "a bare LF": Buffer.from("ICAP/1.0 204 OK\nA: b\r\n\r\n"),
    "a bare CR": answer("ICAP/1.0 204 OK", "A: b\rEncapsulated: x", "", ""),
    "a NUL": answer("ICAP/1.0 204 OK", "A: b\0", "", ""),
    "a line that is no field": answer("ICAP/1.0 204 OK", "nonsense", "", ""),
    "a blank before the colon": answer("ICAP/1.0 204 OK", "Encapsulated : null-body=0", "", ""),
    "a fold before any field": answer("ICAP/1.0 204 OK", " folded", "", ""),
    "two Encapsulated headers": answer("ICAP/1.0 200 OK", "Encapsulated: null-body=0", "Encapsulated: null-body=0", "", ""),
    "an empty Encapsulated": encapsulated(""),
    "an offset beyond the head": encapsulated(`res-hdr=0, res-body=${HEAD.length + 3}`, `${HEAD}0\r\n\r\n`),
    "an offset inside the head": encapsulated(`res-hdr=0, res-body=${HEAD.length - 9}`, `${HEAD}0\r\n\r\n`),
    "an offset that takes in the body's first empty line": encapsulated(`res-hdr=0, res-body=${HEAD.length + 5}`, `${HEAD}0\r\n\r\n`),
    "a first offset that is not 0": encapsulated("res-hdr=1, res-body=20"),
    "offsets that go down": encapsulated("req-hdr=0, res-hdr=20, res-body=10"),
    "two heads at one offset": encapsulated("req-hdr=0, res-hdr=0, res-body=10"),
    "a head twice": encapsulated("res-hdr=0, res-hdr=10, res-body=20"),
    "four sections": encapsulated("req-hdr=0, res-hdr=10, req-body=20, res-body=30"),
    "a body before a head": encapsulated("res-body=0, res-hdr=10"),
    "no body": encapsulated("res-hdr=0"),
    "an unknown section": encapsulated("new-hdr=0, res-body=10"),
    "a negative offset": encapsulated("res-hdr=0, res-body=-1"),
    "an encapsulated head that is no response": encapsulated("res-hdr=0, null-body=15", "Content-A: b\r\n\r\n"),
    "a chunk size that is no number": inChunks("xyz\r\n"),
    "no chunk size": inChunks("\r\n"),
    "a negative chunk size": inChunks("-5\r\nhello\r\n"),
    "a chunk size with 0x": inChunks("0x5\r\nhello\r\n"),
    "a chunk size that ends in LF": inChunks("5\nhello\r\n"),
    "a chunk longer than its size": inChunks("5\r\nhello!\r\n0\r\n\r\n"),
    "a chunk shorter than its size": inChunks("5\r\nhell\r\n0\r\n\r\n"),
    "a trailer that is no field": inChunks("0\r\nnonsense\r\n\r\n"),
  };

  it.each(Object.entries(cases))("%s", (_, bytes) => {
    expect(() => parse([bytes])).toThrow(expect.objectContaining({ code: "protocol" }) as Error);
    expect(() => parse(Array.from(bytes, (byte) => Uint8Array.of(byte)))).toThrow(expect.objectContaining({ code: "protocol" }) as Error);
  });

  it("with a text that quotes little of it, and nothing raw", () => {
    const text = thrown(answer(`\u001b[31m"${"x".repeat(1000)}`, "", ""));
    expect(text).toMatch(/^MalformedMessage: [\x20-\x7e…]+$/);
    expect(text.length).toBeLessThan(150);
    expect(text).toContain('\\u{1b}[31m\\"xxx');
  });
});

describe("limits", () => {
  const limit = expect.objectContaining({ code: "limit" }) as Error;

  it.each([
    ["a status line that never ends", endless("ICAP/1.0 200 ", "x".repeat(1000))],
    ["fields that never end", endless("ICAP/1.0 200 OK\r\n", "A: b\r\n")],
    ["a folded line that never ends", endless("ICAP/1.0 200 OK\r\nA: b\r\n", " c\r\n")],
    ["a chunk extension that never ends", endless(inChunks("5;").toString(), "x".repeat(100))],
    ["a trailer that never ends", endless(inChunks("0\r\n").toString(), "A: b\r\n")],
  ])("%s", (_, pieces) => {
    expect(() => parse(pieces as Buffer[])).toThrow(limit);
  });

  it("more fields than allowed", () => {
    expect(parse([headOf(10)], { headerCount: 10 }).complete).toBe(true);
    expect(() => parse([headOf(11)], { headerCount: 10 })).toThrow(limit);
  });

  it("a head of just the limit passes, one byte more does not", () => {
    const head = answer("ICAP/1.0 204 OK", "A: b", "", "");
    for (const pieces of [[head], Array.from(head, (byte) => Uint8Array.of(byte))]) {
      expect(parse(pieces, { headerBytes: head.length }).complete).toBe(true);
      expect(() => parse(pieces, { headerBytes: head.length - 1 })).toThrow(limit);
    }
  });

  it("encapsulated heads that are announced too long are refused before they come", () => {
    expect(() => parse([answer("ICAP/1.0 200 OK", "Encapsulated: res-hdr=0, res-body=4000000000", "", "")])).toThrow(limit);
  });

  it("a chunk size of too many digits", () => {
    expect(() => parse([inChunks(`${"0".repeat(12)}5\r\nhello\r\n0\r\n\r\n`)])).toThrow(limit);
    expect(() => parse([inChunks(`${"f".repeat(13)}\r\n`)])).toThrow(limit);
    expect(parse([inChunks("ffffffffffff\r\nhello")]).body).toBe("hello");
  });
});
