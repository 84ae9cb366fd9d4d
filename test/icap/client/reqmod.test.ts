import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { IcapService } from "../../../icap/index.ts";
import { codeOf, scan } from "../support/scan.ts";
import { CLEAN, OPTIONS, type Peer, type Script, scriptedServer } from "../support/scripted-server.ts";
import { setUp } from "../support/set-up.ts";

const REQMOD = OPTIONS.replace("RESPMOD", "REQMOD");
const LINE = "POST http://media.invalid/file.bin HTTP/1.1";
const CHUNKS = "5\r\nhello\r\n0\r\n\r\n";

function reqmod(script: Script) {
  return setUp({ options: REQMOD, ...script }, { method: "REQMOD" });
}

/** A 200 around these heads and this body. */
function answer(heads: readonly (readonly [section: string, head: string])[], section: string, chunks: string, fields = ""): string {
  let offset = 0;
  const items = heads.map(([name, head]) => {
    const item = `${name}=${offset}`;
    offset += head.length;
    return item;
  });
  const encapsulated = [...items, `${section}=${offset}`].join(", ");
  return `ICAP/1.0 200 OK\r\n${fields}Encapsulated: ${encapsulated}\r\n\r\n${heads.map(([, head]) => head).join("")}${chunks}`;
}

const req = (line = LINE, fields = "") => ["req-hdr", `${line}\r\nHost: media.invalid\r\n${fields}\r\n`] as const;
const res = (status = 200) => ["res-hdr", `HTTP/1.1 ${status} OK\r\nContent-Type: text/html\r\n\r\n`] as const;
const says =
  (text: string) =>
  ({ socket }: Peer): void => {
    socket.write(text);
  };

function part<T>(right: T, ...wrong: T[]): fc.Arbitrary<T> {
  return fc.oneof({ weight: 4, arbitrary: fc.constant(right) }, fc.constantFrom(...wrong));
}

describe("a scan by REQMOD", () => {
  it("sends the file as a POST, and believes the 204", async () => {
    let received = "";
    await using it = await reqmod({
      complete: (peer) => {
        received = peer.received();
        peer.socket.write(CLEAN);
      },
    });
    const { verdict } = await scan(it.service, "hello", { fileName: "a b.pdf", contentType: "application/pdf" });
    expect(verdict).toEqual({ outcome: "clean", how: "204" });
    const authority = new URL(it.server.url).host;
    const head =
      "POST http://media.invalid/a%20b.pdf HTTP/1.1\r\nHost: media.invalid\r\nContent-Type: application/pdf\r\nContent-Length: 5\r\n\r\n";
    expect(received).toBe(
      `REQMOD icap://${authority}/scan ICAP/1.0\r\nHost: ${authority}\r\nUser-Agent: icap-scan/1.0\r\nAllow: 204\r\n` +
        `Encapsulated: req-hdr=0, req-body=${head.length}\r\n\r\n${head}${CHUNKS}`,
    );
  });

  it.each([
    ["the same", LINE],
    ["with another version", LINE.replace("1.1", "1.0")],
  ])("believes an echo whose request line is %s", async (_, line) => {
    await using it = await reqmod({ complete: says(answer([req(line)], "req-body", CHUNKS)) });
    const result = await scan(it.service, "hello", { returned: () => Promise.resolve() });
    expect(result).toMatchObject({ verdict: { outcome: "clean", how: "echo" }, replacement: undefined });
    expect(it.service.stats()).toMatchObject({ open: 1, idle: 1 });
  });

  it("of nothing believes that nothing came back", async () => {
    await using it = await reqmod({ complete: says(answer([req()], "null-body", "")) });
    expect((await scan(it.service, "")).verdict.outcome).toBe("clean");
  });

  it("needs a service that does it", async () => {
    await using it = await setUp({ options: OPTIONS }, { method: "REQMOD" });
    expect(await codeOf(scan(it.service, "hello"))).toBe("wrong_service");
    expect(it.server.count.requests).toBe(0);
  });

  it.each([403, 200, 204])("that is answered with a response is blocked, whatever its status (%i)", async (status) => {
    await using it = await reqmod({ complete: says(answer([res(status)], "res-body", CHUNKS)) });
    expect((await scan(it.service, "hello")).verdict.outcome).toBe("infected");
  });

  it.each([
    ["another method", answer([req(LINE.replace("POST", "GET"))], "req-body", CHUNKS)],
    ["another method of the same length", answer([req(LINE.replace("POST", "PUSH"))], "req-body", CHUNKS)],
    ["another address of the same length", answer([req(LINE.replace("file", "page"))], "req-body", CHUNKS)],
    ["another address", answer([req(LINE.replace("file", "blocked"))], "req-body", CHUNKS)],
    ["a longer address", answer([req(LINE.replace(" HTTP", "?blocked HTTP"))], "req-body", CHUNKS)],
    ["no version", answer([req(LINE.replace(" HTTP/1.1", ""))], "req-body", CHUNKS)],
    ["other bytes", answer([req()], "req-body", CHUNKS.replace("hello", "hellO"))],
    ["fewer bytes", answer([req()], "req-body", "4\r\nhell\r\n0\r\n\r\n")],
    ["more bytes", answer([req()], "req-body", "6\r\nhello!\r\n0\r\n\r\n")],
    ["no body", answer([req()], "null-body", "")],
    ["the body of a response", answer([req()], "res-body", CHUNKS)],
    ["the body of OPTIONS", answer([req()], "opt-body", CHUNKS)],
    ["a response as well", answer([req(), res()], "req-body", CHUNKS)],
    ["a response in the request's place", answer([res()], "req-body", CHUNKS)],
    ["no head", answer([], "req-body", CHUNKS)],
    ["a threat in the ICAP head", answer([req()], "req-body", CHUNKS, "X-Virus-ID: Eicar\r\n")],
    ["a threat in the request's head", answer([req(LINE, "X-Virus-ID: Eicar\r\n")], "req-body", CHUNKS)],
    ["a threat in the trailer", answer([req()], "req-body", "5\r\nhello\r\n0\r\nX-Virus-ID: Eicar\r\n\r\n")],
    ["a 204 with the request in it", answer([req()], "req-body", CHUNKS).replace("200 OK", "204 OK")],
    ["nothing at all", "ICAP/1.0 200 OK\r\n\r\n"],
  ])("is not clean by an echo with %s", async (_, text) => {
    await using it = await reqmod({ complete: says(text) });
    const { verdict, replacement } = await scan(it.service, "hello", { returned: () => Promise.resolve() });
    expect(verdict.outcome).not.toBe("clean");
    expect(replacement).toBeUndefined();
  });

  it("is not clean by an echo that comes before all was sent", async () => {
    await using it = await reqmod({ begin: says(answer([req()], "req-body", CHUNKS)) });
    const more = Promise.withResolvers<void>();
    const scanning = scan(it.service, "hello", {
      async *body() {
        yield Buffer.from("hel");
        await more.promise;
        yield Buffer.from("lo");
      },
    });
    expect((await scanning).verdict.outcome).toBe("error");
    more.resolve();
  });

  it("is clean by an echo of every part, and by nothing less", async () => {
    let text = "";
    await using server = await scriptedServer({ options: REQMOD, complete: ({ socket }) => socket.end(text) });
    await using service = new IcapService({ url: server.url, method: "REQMOD", timeouts: { answer: 20_000 } });
    await fc.assert(
      fc.asyncProperty(
        part("200", "201", "206", "204", "404"),
        part(LINE, "POST / HTTP/1.1", LINE.replace("POST", "PUT"), "", `${LINE} `, "HTTP/1.1 200 OK"),
        part("req-body", "res-body", "opt-body", "null-body"),
        part(CHUNKS, "5\r\nhellO\r\n0\r\n\r\n", "4\r\nhell\r\n0\r\n\r\n", "5\r\nhello\r\n", ""),
        part(false, true),
        async (status, line, section, chunks, response) => {
          text = answer(response ? [req(line), res()] : [req(line)], section, section === "null-body" ? "" : chunks).replace("200", status);
          const right = status === "200" && line === LINE && section === "req-body" && chunks === CHUNKS && !response;
          const result = await codeOf(scan(service, "hello"));
          const clean = expect.objectContaining({
            resolved: expect.objectContaining({ verdict: { outcome: "clean", how: "echo" } }),
          }) as unknown;
          if (right) expect(result).toEqual(clean);
          else expect(result).not.toMatchObject({ resolved: { verdict: { outcome: "clean" } } });
        },
      ),
      { numRuns: 300 },
    );
  });

  it("gives the page that says why it is blocked, where nothing else does", async () => {
    const page = "17\r\n<p>Blocked by policy</p\r\n1\r\n>\r\n0\r\n\r\n";
    const pageOf = async (text: string, sent = "hello"): Promise<unknown> => {
      await using it = await reqmod({ complete: says(text) });
      const parts: Uint8Array[] = [];
      const result = await scan(it.service, sent, { returned: async (bytes) => void parts.push(Uint8Array.from(bytes)) });
      return [result.verdict, result.page, Buffer.concat(parts).toString()];
    };
    const threat = "HTTP 403 in answer to the request";
    expect(await pageOf(answer([res(403)], "res-body", page))).toEqual([
      { outcome: "infected", threat },
      { contentType: "text/html" },
      "<p>Blocked by policy</p>",
    ]);
    const named = answer([res(403)], "res-body", page, "X-Infection-Found: Type=0; Resolution=2; Threat=Eicar;\r\n");
    expect(await pageOf(named)).toEqual([{ outcome: "infected", threat: "Eicar" }, undefined, expect.any(String)]);
    // The page may be cut off: the block stands.
    const cut = answer([res(403)], "res-body", "16\r\n<p>Blo");
    await using it = await reqmod({ complete: ({ socket }) => socket.end(cut) });
    expect(await scan(it.service, "hello", {})).toMatchObject({
      verdict: { outcome: "infected", threat },
      page: { contentType: "text/html" },
    });
  });
});
