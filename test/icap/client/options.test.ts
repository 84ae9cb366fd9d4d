import { describe, expect, it } from "vitest";
import { IcapServer, IcapService } from "../../../icap/index.ts";
import { codeOf, scan, until } from "../support/scan.ts";
import { CLEAN, OPTIONS } from "../support/scripted-server.ts";
import { clean, setUp } from "../support/set-up.ts";

describe("OPTIONS", () => {
  const signal = new AbortController().signal;

  it("tells what the service is", async () => {
    await using server = new IcapServer({
      services: {
        av: {
          table: { isTag: "t", description: "A test", preview: 1024, optionsTtl: 99, maxConnections: 7, methods: ["REQMOD", "RESPMOD"] },
          handle: () => Promise.resolve({ status: 204 }),
        },
      },
    });
    const { port } = await server.listen(0);
    await using service = new IcapService({ url: `icap://127.0.0.1:${port}/av?mode=simple` });
    expect(await service.options(signal)).toEqual({
      isTag: "t",
      methods: ["REQMOD", "RESPMOD"],
      preview: 1024,
      allow204: true,
      maxConnections: 7,
      optionsTtl: 99,
      include: [],
      transfer: { preview: [], ignore: [], complete: [] },
      service: "A test",
    });
    expect(service.capacity).toBe(6);
    expect(service.url).toBe(`icap://127.0.0.1:${port}/av?mode=simple`);
  });

  it("tells what the service wants to know, and to be sent", async () => {
    const fields =
      "X-Include: X-Client-IP, X-Authenticated-User\r\n ,X-Client-IP, not a name?\r\n" +
      "Transfer-Preview: *\r\nTransfer-Ignore: .JPG, gif,,\r\n png\r\nTransfer-Complete: exe\r\nTransfer-Complete: zip, exe\r\n";
    await using it = await setUp({ options: OPTIONS.replace("Options-TTL", `${fields}Options-TTL`) });
    expect(await it.service.options(signal)).toMatchObject({
      include: ["x-client-ip", "x-authenticated-user", "not", "a"],
      transfer: { preview: ["*"], ignore: ["jpg", "gif", "png"], complete: ["exe", "zip"] },
    });
  });

  it.each([
    ["of too many", Array.from({ length: 5000 }, (_, at) => at.toString(36)).join(",")],
    ["of one that is too long", "x".repeat(65)],
    ["of what is not printable", "e\u001b[2J"],
  ])("has a list %s: then nothing is ignored", async (_, list) => {
    const fields = `Transfer-Ignore: *\r\nTransfer-Complete: exe, ${list}\r\nX-Include: ${"x,".repeat(100)}${"x".repeat(100)}\r\n`;
    await using it = await setUp({ options: OPTIONS.replace("Options-TTL", `${fields}Options-TTL`) });
    const { transfer, include } = await it.service.options(signal);
    expect(transfer.ignore).toEqual([]);
    expect(transfer.complete[0]).toBe("exe");
    expect(transfer.complete.length).toBeLessThanOrEqual(4096);
    expect([...transfer.complete, ...include].join("")).toMatch(/^[\x21-\x7e]*$/);
    expect(include).toEqual(["x"]);
  });

  it.each([
    ["404", "ICAP/1.0 404 No\r\nConnection: close\r\n\r\n", "wrong_service"],
    ["no RESPMOD", OPTIONS.replace("RESPMOD", "REQMOD"), "wrong_service"],
    ["503", "ICAP/1.0 503 Busy\r\n\r\n", "unavailable"],
    ["204", CLEAN, "unavailable"],
  ])("%s means that nothing is scanned", async (_, options, code) => {
    await using it = await setUp({ ...clean, options });
    expect(await codeOf(scan(it.service, "hello"))).toBe(code);
    expect(it.server.count.requests).toBe(0);
  });

  it("is asked once by many, again before its time is over without making anyone wait, and waited for after it", async () => {
    let now = 0;
    let answer: string | null = OPTIONS.replace("3600", "100");
    await using it = await setUp({ ...clean, options: () => answer ?? "" }, { clock: () => now });
    await Promise.all([1, 2, 3].map(() => it.service.options(signal)));
    expect(it.server.count.options).toBe(1);
    now = 89_000;
    await it.service.options(signal);
    expect(it.server.count.options).toBe(1);
    now = 91_000;
    answer = null;
    expect((await it.service.options(signal)).isTag).toBe("tag-1");
    await until(() => it.server.count.options === 2);
    now = 101_000;
    const ac = new AbortController();
    const waiting = it.service.options(ac.signal);
    ac.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
    answer = OPTIONS.replace("tag-1", "tag-9");
    expect((await it.service.options(signal)).isTag).toBe("tag-9");
  });

  it("is asked at once when what is remembered will not do", async () => {
    let tag = "tag-1";
    await using it = await setUp({ ...clean, options: () => OPTIONS.replace("tag-1", tag) });
    await it.service.options(signal);
    tag = "tag-2";
    expect((await it.service.options(signal)).isTag).toBe("tag-1");
    expect((await it.service.options(signal, { fresh: true })).isTag).toBe("tag-2");
    expect((await it.service.options(signal)).isTag).toBe("tag-2");
    expect(it.server.count.options).toBe(2);
  });

  it("is asked again when an answer comes under another tag", async () => {
    let now = 0;
    let tag = "tag-1";
    await using it = await setUp(
      {
        options: () => OPTIONS.replace("tag-1", tag),
        complete: ({ socket }) => socket.write(`ICAP/1.0 204 OK\r\nISTag: "${tag}"\r\n\r\n`),
      },
      { clock: () => now },
    );
    await scan(it.service, "hello");
    now = 5_000;
    tag = "tag-2";
    expect((await scan(it.service, "hello")).isTag).toBe("tag-2");
    await it.service.options(signal);
    await until(() => it.server.count.options === 2);
    await until(() => it.service.stats().busy === 0);
    expect((await it.service.options(signal)).isTag).toBe("tag-2");
  });

  it("is not abandoned for one caller that leaves while another waits", async () => {
    let release: (() => void) | undefined;
    await using server = new IcapServer({
      services: { av: { table: { isTag: () => (release?.(), "t") }, handle: () => Promise.resolve({ status: 204 }) } },
    });
    const { port } = await server.listen(0);
    await using service = new IcapService({ url: `icap://127.0.0.1:${port}/av` });
    const leaving = new AbortController();
    const left = service.options(leaving.signal);
    const stayed = service.options(signal);
    release = () => undefined;
    leaving.abort(new Error("enough"));
    await expect(left).rejects.toThrow("enough");
    expect((await stayed).isTag).toBe("t");
    expect(server.connections.total).toBe(1);
  });
});
