import { describe, expect, it } from "vitest";
import { IcapService, type IcapServiceOptions } from "../../../icap/index.ts";
import { codeOf, scan } from "../support/scan.ts";
import { CLEAN, OPTIONS, type Script, scriptedServer, withBody } from "../support/scripted-server.ts";
import { clean, setUp } from "../support/set-up.ts";

const CREDENTIALS = { username: "gateway", password: "pässword-of-the-gateway" };
const TOKEN = Buffer.from(`${CREDENTIALS.username}:${CREDENTIALS.password}`).toString("base64");

describe("fields of a request", () => {
  it("are sent in the ICAP head, as they are", async () => {
    let received = "";
    await using it = await setUp({
      complete: (peer) => {
        received = peer.received();
        peer.socket.write(CLEAN);
      },
    });
    const fields = [
      ["X-Client-IP", "192.0.2.1"],
      ["X-Authenticated-User", ""],
    ] as const;
    await scan(it.service, "hello", { fields });
    const head = received.slice(0, received.indexOf("\r\n\r\n"));
    expect(head).toContain("\r\nAllow: 204\r\nX-Client-IP: 192.0.2.1\r\nX-Authenticated-User: \r\nEncapsulated:");
  });

  it.each([
    ["Host", "x"],
    ["encapsulated", "null-body=0"],
    ["ALLOW", "206"],
    ["Preview", "0"],
    ["Proxy-Authorization", "Basic x"],
    ["Connection", "close"],
    ["ISTag", "x"],
    ["X-TE", "trailers"],
    ["Transfer-Encoding", "chunked"],
    ["X Client", "x"],
    ["X-Client\r\nEvil", "x"],
    ["", "x"],
    ["X-Client", "x\r\nEvil: 1"],
    ["X-Client", "x\n y"],
    ["X-Client", "ü"],
    ["X-Client", " x"],
  ])("may not be %j: %j", async (name, value) => {
    await using it = await setUp(clean);
    await expect(scan(it.service, "hello", { fields: [[name, value]] })).rejects.toThrow(TypeError);
    expect(it.server.count.requests).toBe(0);
  });
});

describe("credentials", () => {
  it("are sent with every request, OPTIONS included", async () => {
    const heads: string[] = [];
    await using server = await scriptedServer({
      begin: ({ received }) => void heads.push(received()),
      ...clean,
      optionsHead: (head) => void heads.push(head),
    });
    await using service = new IcapService({ url: server.url, credentials: CREDENTIALS });
    await scan(service, "hello");
    await scan(service, "hello");
    const sent = heads.map((head) => head.split("\r\n").filter((line) => line.startsWith("Proxy-Authorization")));
    expect(sent).toEqual([1, 2, 3].map(() => [`Proxy-Authorization: Basic ${TOKEN}`]));
  });

  it.each([
    ["a colon in the name", { username: "gate:way", password: "secret-of-mine" }],
    ["a line end in the name", { username: "gateway\r\nEvil: 1", password: "secret-of-mine" }],
    ["a control character in the password", { username: "gateway", password: "secret-of-mine\x7f" }],
    ["half a character", { username: "gateway", password: "secret-of-mine\ud800" }],
    ["a password of any length", { username: "gateway", password: "secret-of-mine".repeat(100) }],
  ])("may not have %s, and are not quoted", (_, credentials) => {
    const make = (): IcapService => new IcapService({ url: "icap://127.0.0.1/av", credentials });
    expect(make).toThrow(TypeError);
    expect(make).not.toThrow(/gateway|secret/);
  });

  it("that are refused are named as the reason", async () => {
    await using options = await setUp({ options: "ICAP/1.0 407 Proxy Authentication Required\r\n\r\n" });
    const failed = scan(options.service, "hello");
    await expect(failed).rejects.toThrow(/407.*credentials/);
    expect(await codeOf(failed)).toBe("unavailable");
    await using answer = await setUp({ complete: ({ socket }) => socket.write("ICAP/1.0 407 No\r\n\r\n") });
    expect((await scan(answer.service, "hello")).verdict).toEqual({ outcome: "error", why: expect.stringContaining("407") as unknown });
  });

  it.each<[string, string]>([
    ["a status line", `${TOKEN}\r\n\r\n`],
    ["a part of a field that is none", `ICAP/1.0 200 OK\r\n${"x".repeat(45)} ${TOKEN}\r\n\r\n`],
    ["the password", `${CREDENTIALS.password}\r\n\r\n`],
    ["a threat's name", withBody("3\r\nbye\r\n0\r\n\r\n", "HTTP/1.1 403 No\r\n\r\n", `X-Virus-ID: ${TOKEN}\r\n`)],
    ["an error", `ICAP/1.0 500 No\r\nX-Error-Code: ${TOKEN}\r\n\r\n`],
  ])("that a server repeats as %s are in no text", async (_, text) => {
    await using it = await setUp({ complete: ({ socket }) => socket.write(Buffer.from(text)) }, { credentials: CREDENTIALS });
    const told = await scan(it.service, "hello").then(
      (result) => JSON.stringify(result),
      (error: unknown) => {
        const { message, stack, cause } = error as Error;
        return JSON.stringify([message, stack, cause instanceof Error ? cause.message : cause]);
      },
    );
    for (let at = 0; at + 8 <= TOKEN.length; at++) expect(told).not.toContain(TOKEN.slice(at, at + 8));
    expect(told).not.toContain("word-of-the");
    expect(told).toContain("repeated the credentials");
  });
});

/** The ISTag of OPTIONS, and that of a scan, when the server gives both of them this one. */
async function tagsOf(tag: string, password: string): Promise<readonly (string | undefined)[]> {
  const script: Script = {
    options: OPTIONS.replace("tag-1", tag),
    complete: ({ socket }) => socket.write(`ICAP/1.0 204 OK\r\nISTag: "${tag}"\r\n\r\n`),
  };
  await using it = await setUp(script, { credentials: { username: "gateway", password } });
  const { isTag } = await it.service.options(new AbortController().signal);
  return [isTag, (await scan(it.service, "hello")).isTag];
}

/** What is told of a server whose error repeats the password. */
async function errorWith(password: string): Promise<string> {
  const script: Script = { complete: ({ socket }) => socket.write(`ICAP/1.0 500 No\r\nX-Error-Code: <${password}>\r\n\r\n`) };
  await using it = await setUp(script, { credentials: { username: "gateway", password } });
  return JSON.stringify((await scan(it.service, "hello")).verdict);
}

describe("credentials of a service that repeats them", () => {
  it.each(["pass-word-of-the-gateway", "Tr0ub4d", "abc"])(
    "as its ISTag are not in it, and one tag is still another than the other (%s)",
    async (password) => {
      const [one, two] = [await tagsOf(`1-${password}`, password), await tagsOf(`2-${password}`, password)];
      for (const tag of [...one, ...two]) expect(tag).not.toContain(password);
      expect(one[0]).toBe(one[1]);
      expect(two[0]).toBe(two[1]);
      expect(one[0]).not.toBe(two[0]);
      expect(await tagsOf(`1-${password}`, password)).toEqual(one);
      expect(await tagsOf("harmless", password)).toEqual(["harmless", "harmless"]);
    },
  );

  it("are in no text however short they are, if that is three characters or more", async () => {
    for (const password of ["Q7!", "Q7!x", "Q7!xyzw"]) expect(await errorWith(password)).toContain("repeated the credentials");
    for (const password of ["", "Q7"]) expect(await errorWith(password)).toContain("X-Error-Code");
  });

  it("in an answer that can't be read still have it said that there was one", async () => {
    await using it = await setUp({ complete: ({ socket }) => socket.write(`${TOKEN}\r\n\r\n`) }, { credentials: CREDENTIALS });
    await expect(scan(it.service, "hello")).rejects.toMatchObject({
      code: "protocol",
      answered: true,
      message: expect.stringContaining("repeated") as unknown,
    });
  });

  it("as its name, or as the type of what it sends, are not told", async () => {
    const { password } = CREDENTIALS;
    const ascii = password.slice(2);
    const head = `HTTP/1.1 200 OK\r\nContent-Type: text/${ascii}\r\n\r\n`;
    await using it = await setUp(
      {
        options: OPTIONS.replace("Allow", `Service: ${ascii}\r\nAllow`),
        complete: ({ socket }) => socket.write(withBody("3\r\nbye\r\n0\r\n\r\n", head)),
      },
      { credentials: CREDENTIALS },
    );
    expect((await it.service.options(new AbortController().signal)).service).toContain("repeated the credentials");
    const { replacement } = await scan(it.service, "hello", { returned: () => Promise.resolve() });
    expect(replacement).toEqual({ size: 3, contentType: undefined });
  });
});

describe("a service", () => {
  it.each<[string, Partial<IcapServiceOptions>]>([
    ["no connections", { maxConnections: 0 }],
    ["half a place in line", { maxWaiting: 0.5 }],
    ["no time", { timeouts: { total: 0 } }],
    ["time without end for an answer", { timeouts: { answer: Infinity } }],
    ["a header that is no name", { blockedBy: ["X-Blocked: yes"] }],
    ["an unknown profile", { profile: "none" as "auto" }],
    ["another scheme", { url: "http://127.0.0.1/av" }],
    ["a trusted preview where every preview is acquitted", { profile: "fortisandbox", preview: "trusted" }],
    ["a preview where every preview is acquitted", { profile: "fortisandbox", preview: "required" }],
  ])("with %s is refused", (_, options) => {
    expect(() => new IcapService({ url: "icap://127.0.0.1/av", ...options })).toThrow(TypeError);
  });

  it("takes method and path from its profile, unless it is told others", async () => {
    const script: Script = { ...clean, options: OPTIONS.replace("RESPMOD", "RESPMOD, REQMOD") };
    const lines: string[] = [];
    const begin: Script["begin"] = ({ received }) => void lines.push(received().slice(0, received().indexOf("\r\n")));
    await using server = await scriptedServer({ ...script, begin });
    const { host } = new URL(server.url);
    await using dlp = new IcapService({ url: `icap://${host}`, profile: "broadcom-dlp" });
    await using told = new IcapService({ url: `icap://${host}/other?a=b`, profile: "broadcom-dlp", method: "RESPMOD" });
    await scan(dlp, "hello");
    await scan(told, "hello");
    expect(dlp.profile).toMatchObject({ name: "broadcom-dlp", method: "REQMOD" });
    expect(lines).toEqual([`REQMOD icap://${host}${dlp.profile.path} ICAP/1.0`, `RESPMOD icap://${host}/other?a=b ICAP/1.0`]);
  });

  it("may be told which other fields mean blocked", async () => {
    const script: Script = { complete: ({ socket }) => socket.write("ICAP/1.0 204 OK\r\nX-House-Rules: 7\r\n\r\n") };
    await using deaf = await setUp(script);
    await using told = await setUp(script, { blockedBy: ["x-house-rules"] });
    expect((await scan(deaf.service, "hello")).verdict.outcome).toBe("clean");
    expect((await scan(told.service, "hello")).verdict.outcome).toBe("infected");
  });
});
