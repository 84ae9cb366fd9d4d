import { describe, expect, it } from "vitest";
import { IcapError, type IcapServiceOptions } from "../../../icap/index.ts";
import { scan } from "../support/scan.ts";
import { CLEAN, OPTIONS, type Peer, type Script, withBody } from "../support/scripted-server.ts";
import { setUp } from "../support/set-up.ts";

const NAMED = "X-Infection-Found: Type=0; Resolution=2; Threat=Eicar;\r\n";
const UNSCANNABLE = "X-Infection-Found: Type=2; Resolution=2; Threat=Encrypted;\r\n";
const BLOCKED = "HTTP/1.1 403 Forbidden\r\n\r\n";
const INFECTED = { outcome: "infected", threat: "Eicar" };

/** What becomes of `hello`: its verdict; or the error's code, and whether it says that there was an answer. */
async function told(script: Script, options: Partial<IcapServiceOptions> = {}, request: Parameters<typeof scan>[2] = {}) {
  await using it = await setUp(script, { timeouts: { answer: 200, total: 400 }, ...options });
  try {
    const { verdict, replacement } = await scan(it.service, "hello", request);
    return { verdict, replacement, idle: it.service.stats().idle };
  } catch (error) {
    return error instanceof IcapError ? { code: error.code, answered: error.answered } : error;
  }
}

const page = (fields: string, rest: string, head = BLOCKED): string => withBody(rest, head, fields);
const says =
  (text: string) =>
  ({ socket }: Peer): unknown =>
    socket.write(text);
/** `text`, and then that. */
const then = (what: (peer: Peer) => void) => (text: string) => (peer: Peer) =>
  void peer.socket.write(text, () => setTimeout(what, 20, peer));
const ends = then(({ socket }) => socket.end());
const breaksOff = then(({ socket }) => socket.resetAndDestroy());
const drips = then(({ socket }) => {
  const timer = setInterval(() => socket.write("1\r\nx\r\n"), 10);
  socket.once("close", () => clearInterval(timer));
});

const taken = (): Promise<void> => Promise.resolve();

const HALF = "5\r\nhe";
const WHOLE = "5\r\nhello\r\n0\r\n\r\n";
const FAILURES: [string, (text: string) => (peer: Peer) => unknown, string, string][] = [
  ["is closed in the middle", ends, HALF, "closed_early"],
  ["is broken off in the middle", breaksOff, HALF, "closed_early"],
  ["stalls in the middle", says, HALF, "timeout"],
  ["takes longer than a scan may", drips, "", "timeout"],
  ["has a chunk that is none", says, "zz\r\nhello", "protocol"],
  ["has a chunk longer than its size", says, "3\r\nhello\r\n0\r\n\r\n", "protocol"],
  ["has a trailer that is none", says, "5\r\nhello\r\n0\r\nnone\r\n\r\n", "protocol"],
  ["has a line end behind it", says, `${WHOLE}\r\n`, "protocol"],
  ["has another answer behind it", says, WHOLE + CLEAN, "protocol"],
];

describe("an answer whose body", () => {
  it.each(FAILURES)("%s convicts by its head", async (_, send, rest) => {
    for (const fields of [NAMED, ""]) {
      const threat = fields === NAMED ? INFECTED.threat : "HTTP 403";
      expect(await told({ complete: send(page(fields, rest)) })).toEqual({
        verdict: { outcome: "infected", threat },
        replacement: undefined,
        idle: 0,
      });
    }
  });

  it.each(FAILURES)("%s says by its head what could not be looked into", async (_, send, rest) => {
    expect(await told({ complete: send(page(UNSCANNABLE, rest)) })).toMatchObject({
      verdict: { outcome: "unscannable", why: "Encrypted" },
    });
  });

  it.each(FAILURES)("%s is nothing else, but an error that says there was an answer", async (_, send, rest, code) => {
    // Whatever comes back is a block, were it whole.
    for (const profile of ["auto", "icapeg"] as const) {
      const error = await told({ complete: send(withBody(rest)) }, { profile }, { returned: taken });
      expect(error, profile).toEqual({ code, answered: true });
    }
    const sanitised = await told(
      { complete: send(page("X-Response-Info: Allowed\r\n", rest, "HTTP/1.1 200 OK\r\n\r\n")) },
      {},
      { returned: taken },
    );
    expect(sanitised).toEqual({ code, answered: true });
  });

  it("nobody can take convicts by its head as well, and is that very error else", async () => {
    const error = new Error("the disk is full");
    const returned = (): Promise<void> => Promise.reject(error);
    expect(await told({ complete: says(page(NAMED, WHOLE)) }, {}, { returned })).toMatchObject({ verdict: INFECTED });
    expect(await told({ complete: says(withBody(WHOLE)) }, {}, { returned })).toBe(error);
  });

  it("is cut off by the caller is the caller's reason, whatever the head says", async () => {
    const reason = new Error("enough");
    const controller = new AbortController();
    const returned = (): Promise<void> => {
      controller.abort(reason);
      return Promise.resolve();
    };
    expect(await told({ complete: says(page(NAMED, HALF)) }, {}, { returned, signal: controller.signal })).toBe(reason);
  });
});

describe("a threat in a trailer", () => {
  it("counts although something stands behind it", async () => {
    const rest = `5\r\nhello\r\n0\r\n${NAMED}\r\nX`;
    expect(await told({ complete: says(withBody(rest)) })).toMatchObject({ verdict: INFECTED });
  });
});

describe("a head that convicts", () => {
  it.each<[string, (peer: Peer) => unknown]>([
    ["is cut off in the encapsulated one", ends(page(NAMED, "").slice(0, -5))],
    ["is broken off before it", breaksOff(page(NAMED, "").slice(0, -BLOCKED.length))],
    ["stalls in it", says(page(NAMED, "").slice(0, -5))],
    ["has a wrong offset", says(page(NAMED, WHOLE).replace("res-body=", "res-body=1"))],
    ["has an Encapsulated header that is none", says(page(NAMED, WHOLE).replace("res-body=", "body="))],
    ["has two of them", says(page(`${NAMED}Encapsulated: null-body=0\r\n`, WHOLE))],
    ["has an encapsulated head that is none", says(page(NAMED, WHOLE).replace("HTTP/1.1", "HTTP/x"))],
  ])("does so when what it announces %s", async (_, complete) => {
    expect(await told({ complete })).toEqual({ verdict: INFECTED, replacement: undefined, idle: 0 });
  });

  it("does so before everything was sent, although its answer ends there", async () => {
    const size = 20_000_000;
    const body = async function* (): AsyncGenerator<Uint8Array> {
      for (let left = size; left > 0; left -= 50_000) yield Buffer.alloc(50_000);
    };
    expect(await told({ begin: ends(page(NAMED, "").slice(0, -5)) }, {}, { body, size })).toMatchObject({ verdict: INFECTED });
  });

  it("does so under an ISTag that nobody can remember", async () => {
    const tag = `ISTag: ${"x".repeat(300)}\r\n`;
    const infected = await told({ complete: says(page(NAMED + tag, WHOLE)) });
    expect(infected).toMatchObject({ verdict: INFECTED });
    expect(await told({ complete: says(CLEAN.replace("\r\n\r\n", `\r\n${tag}\r\n`)) })).toEqual({ code: "limit", answered: true });
  });

  it("may list the files of a large archive", async () => {
    const files = Array.from({ length: 1500 }, (_, at) => `\r\n\tfile-with-a-long-name-in-a-folder-${at}.exe\r\n\tEicar\r\n\t1\r\n\t2`);
    const fields = `X-Violations-Found: 1500${files.join("")}\r\n`;
    expect(fields.length).toBeGreaterThan(64 * 1024);
    expect(await told({ complete: says(page(fields, WHOLE)) })).toMatchObject({ verdict: { outcome: "infected" } });
  });
});

describe("an error says that there was an answer", () => {
  it.each<[string, Script, string]>([
    ["too large a head", { complete: says(`ICAP/1.0 200 OK\r\nA: ${"x".repeat(300_000)}`) }, "limit"],
    ["a bare CR", { complete: says(page("X-Infection-Found: Threat=Ei\rcar\r\n", WHOLE)) }, "protocol"],
    ["a head without its end", { complete: says("ICAP/1.0 200 OK\r\nX-Infec") }, "timeout"],
    ["half a head, and the end", { complete: ends("ICAP/1.0 200 OK\r\nX-Infec") }, "closed_early"],
    ["half an encapsulated head, and the end", { complete: ends(page("", "").slice(0, -5)) }, "closed_early"],
    ["a wrong offset", { complete: says(page("", WHOLE).replace("res-body=", "res-body=99999")) }, "limit"],
    ["a byte, and the end", { complete: ends("I") }, "closed_early"],
    ["another protocol", { complete: says("HTTP/1.1 200 OK\r\n\r\n") }, "protocol"],
    ["100 Continue that names a threat", { complete: says(`ICAP/1.0 100 Continue\r\n${NAMED}\r\n`) }, "protocol"],
    ["100 Continue that nobody asked for", { complete: says("ICAP/1.0 100 Continue\r\n\r\n") }, "protocol"],
  ])("when it is %s", async (_, script, code) => {
    expect(await told(script)).toEqual({ code, answered: true });
  });

  it.each<[string, Script, string]>([
    ["no answer", {}, "timeout"],
    ["the end without one", { complete: ({ socket }) => socket.destroy() }, "closed_early"],
    ["no OPTIONS", { options: null }, "timeout"],
    ["half an answer to OPTIONS", { options: OPTIONS.slice(0, 30) }, "timeout"],
    ["nonsense in answer to OPTIONS", { options: "HTTP/1.1 200 OK\r\n\r\n" }, "protocol"],
    ["bytes behind the answer to OPTIONS", { options: `${OPTIONS}X` }, "protocol"],
  ])("and not when it is %s", async (_, script, code) => {
    expect(await told(script)).toEqual({ code, answered: false });
  });

  it("and not when there was 100 Continue alone", async () => {
    let parts = 0;
    const script: Script = {
      options: OPTIONS.replace("Allow", "Preview: 2\r\nAllow"),
      complete: ({ socket }) => parts++ === 0 && socket.write("ICAP/1.0 100 Continue\r\n\r\n"),
    };
    expect(await told(script, { preview: "required" })).toEqual({ code: "timeout", answered: false });
  });
});
