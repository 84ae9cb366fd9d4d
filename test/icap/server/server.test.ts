import { once } from "node:events";
import { connect } from "node:net";
import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { type IcapHandler, IcapServer, IcapService, type ServiceTable, signatureService } from "../../../icap/index.ts";
import { scan } from "../support/scan.ts";

const EICAR = Buffer.from(["X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR", "-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].join(""), "latin1");
const TABLE: ServiceTable = { isTag: "t1", preview: 8 };

const antivirus = signatureService({
  table: TABLE,
  signatures: [
    { threat: "Eicar", contains: EICAR },
    { threat: "Known", sha256: createHash("sha256").update("known bad").digest("hex").toUpperCase() },
  ],
});
/** Gives back what comes, while it comes. */
const echo: IcapHandler = {
  table: TABLE,
  handle: ({ httpResponse, body }) =>
    Promise.resolve({
      status: 200,
      http: { startLine: httpResponse?.startLine ?? "", fields: httpResponse?.headers.entries() ?? [], body },
    }),
};
const careless: IcapHandler = { table: TABLE, handle: () => Promise.resolve({ status: 204 }) };
const broken: IcapHandler = { table: TABLE, handle: () => Promise.reject(new Error("broken")) };

async function start() {
  const server = new IcapServer({ services: { antivirus, echo, careless, broken }, limits: { headerBytes: 2000 } });
  const { port } = await server.listen(0);
  return Object.assign(server, {
    url: (service: string) => `icap://127.0.0.1:${port}/${service}`,
    /** Sends the text, and gives all that comes until the server closes, or `end` has come. */
    async ask(text: string, end?: string): Promise<string> {
      const socket = connect(port, "127.0.0.1").setEncoding("latin1");
      await once(socket, "connect");
      socket.write(text, "latin1");
      let answer = "";
      for await (const part of socket) {
        answer += String(part);
        if (end !== undefined && answer.endsWith(end)) break;
      }
      socket.destroy();
      return answer;
    },
  });
}

const RES = "HTTP/1.1 200 OK\r\n\r\n";
const respmod = (service: string, chunks: string, fields = "Allow: 204\r\n"): string =>
  `RESPMOD icap://127.0.0.1/${service} ICAP/1.0\r\nHost: a\r\n${fields}Encapsulated: res-hdr=0, res-body=${RES.length}\r\n\r\n${RES}${chunks}`;

const preview = (service: string, end: string): string => respmod(service, `3\r\nabc\r\n0${end}\r\n\r\n`, "Allow: 204\r\nPreview: 3\r\n");

describe("the ICAP server", () => {
  it("answers OPTIONS from its table", async () => {
    await using server = await start();
    const answer = await server.ask("OPTIONS icap://127.0.0.1/antivirus?x=y ICAP/1.0\r\nHost: a\r\n\r\n", "\r\n\r\n");
    expect(answer).toBe(
      'ICAP/1.0 200 OK\r\nMethods: RESPMOD\r\nServer: icap-server/1.0\r\nISTag: "t1"\r\nOptions-TTL: 3600\r\nPreview: 8\r\nAllow: 204\r\n' +
        "Encapsulated: null-body=0\r\n\r\n",
    );
  });

  it.each([
    ["another service", "RESPMOD icap://127.0.0.1/other ICAP/1.0\r\nEncapsulated: null-body=0\r\n\r\n", 404],
    ["no path", "OPTIONS icap://127.0.0.1 ICAP/1.0\r\n\r\n", 404],
    ["another method", "REQMOD icap://127.0.0.1/echo ICAP/1.0\r\nEncapsulated: null-body=0\r\n\r\n", 405],
    ["no Encapsulated", "RESPMOD icap://127.0.0.1/echo ICAP/1.0\r\n\r\n", 400],
    ["a wrong offset", respmod("antivirus", "0\r\n\r\n").replace(`=${RES.length}`, "=5"), 400],
    ["a chunk that is none", respmod("antivirus", "x\r\n"), 400],
    ["HTTP", "GET / HTTP/1.1\r\n\r\n", 400],
    ["a head that is too long", `OPTIONS icap://a/b ICAP/1.0\r\nA: ${"x".repeat(3000)}`, 400],
    ["a handler that fails", respmod("broken", "5\r\nhello\r\n0\r\n\r\n"), 500],
  ])("refuses %s and closes", async (_, request, status) => {
    await using server = await start();
    const answer = await server.ask(request);
    expect(answer).toMatch(new RegExp(`^ICAP/1\\.0 ${status} .*\\r\\n.*Connection: close\\r\\n\\r\\n$`, "s"));
  });

  it("serves requests that come at once, also where a handler reads nothing", async () => {
    await using server = await start();
    const one = respmod("careless", `40000\r\n${"x".repeat(0x40000)}\r\n0\r\n\r\n`);
    const answer = await server.ask(one + one + respmod("broken", "0\r\n\r\n"));
    expect(answer.match(/ICAP\/1\.0 \d+/g)).toEqual(["ICAP/1.0 204", "ICAP/1.0 204", "ICAP/1.0 500"]);
  });

  it("asks for what follows a preview only when its handler wants it", async () => {
    await using server = await start();
    expect(await server.ask(preview("antivirus", ""), "\r\n\r\n")).toBe("ICAP/1.0 100 Continue\r\n\r\n");
    expect(await server.ask(preview("antivirus", "; ieof"), "\r\n\r\n")).toMatch(/^ICAP\/1\.0 204/);
    expect(await server.ask(preview("careless", ""), "\r\n\r\n")).toMatch(/^ICAP\/1\.0 204/);
  });

  it("is closed with its connections", async () => {
    const server = await start();
    const open = server.ask(respmod("antivirus", ""));
    await new Promise((resolve) => {
      setTimeout(resolve, 20);
    });
    await server[Symbol.asyncDispose]();
    expect(await open).toBe("");
    expect(server.connections.open).toBe(0);
  });
});

describe("the client against this server", () => {
  it.each(["never", "required"] as const)("has files judged by their signatures; preview %s", async (preview) => {
    await using server = await start();
    await using service = new IcapService({ url: server.url("antivirus"), preview });
    const outcome = async (content: string | Uint8Array, piece?: number): Promise<unknown> =>
      (await scan(service, content, piece === undefined ? {} : { piece })).verdict;
    const eicar = { outcome: "infected", threat: "Eicar" };
    expect(await outcome("hello world, this is fine")).toEqual({ outcome: "clean", how: "204" });
    expect(await outcome(EICAR)).toEqual(eicar);
    expect(await outcome(Buffer.concat([Buffer.alloc(100_000), EICAR, Buffer.alloc(100_000)]))).toEqual(eicar);
    for (const piece of [1, 7, 67, 68]) expect(await outcome(Buffer.concat([Buffer.from("ab"), EICAR]), piece)).toEqual(eicar);
    expect(await outcome("known bad")).toEqual({ outcome: "infected", threat: "Known" });
    expect(await outcome("known bad ")).toEqual({ outcome: "clean", how: "204" });
    expect(await outcome("")).toEqual({ outcome: "clean", how: "204" });
    expect(server.connections).toMatchObject({ open: 1, total: 1 });
  });

  it("believes no echo that begins before everything is there, and does not hang on it", async () => {
    await using server = await start();
    await using service = new IcapService({ url: server.url("echo") });
    expect((await scan(service, Buffer.alloc(20_000_000, "abc"))).verdict.outcome).toBe("error");
  });

  it("does not take a refusal for a verdict", async () => {
    await using server = await start();
    await using service = new IcapService({ url: server.url("broken") });
    expect(await scan(service, "hello")).toMatchObject({ verdict: { outcome: "error" }, icapStatus: 500 });
  });
});
