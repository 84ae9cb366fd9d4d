import { describe, expect, it } from "vitest";
import type { IcapServiceOptions } from "../../../icap/index.ts";
import { codeOf, scan } from "../support/scan.ts";
import { CLEAN, CONTINUE, OPTIONS, type Script, withBody } from "../support/scripted-server.ts";
import { clean, setUp } from "../support/set-up.ts";

describe("a preview", () => {
  const options = OPTIONS.replace("Allow: 204", "Allow: 204\r\nPreview: 4");
  const withPreview = (complete: NonNullable<Script["complete"]>) => setUp({ options, complete }, { preview: "required" });

  it("is not sent unless it is required", async () => {
    let received = "";
    await using it = await setUp({
      options,
      complete: (peer) => {
        received = peer.received();
        peer.socket.write(CLEAN);
      },
    });
    await scan(it.service, "hello");
    expect(received).not.toContain("Preview");
  });

  it("is followed by the rest after 100 Continue", async () => {
    const received: string[] = [];
    await using it = await withPreview((peer) => {
      received.push(peer.received());
      peer.socket.write(received.length === 1 ? CONTINUE : CLEAN);
    });
    expect((await scan(it.service, "hello world", { piece: 3 })).verdict).toEqual({ outcome: "clean", how: "204" });
    expect(received[0]).toContain("\r\nPreview: 4\r\n");
    expect(received[0]).toMatch(/\r\n\r\n3\r\nhel\r\n1\r\nl\r\n0\r\n\r\n$/);
    expect(received[1]).toBe("2\r\no \r\n3\r\nwor\r\n2\r\nld\r\n0\r\n\r\n");
    expect(it.service.stats().idle).toBe(1);
  });

  it("acquits nothing: a 204 after part of the body is an error", async () => {
    await using it = await withPreview(({ socket }) => socket.write(CLEAN));
    expect((await scan(it.service, "hello")).verdict.outcome).toBe("error");
  });

  it("may convict", async () => {
    await using it = await withPreview(({ socket }) =>
      socket.write(withBody("3\r\nbad\r\n0\r\n\r\n", "HTTP/1.1 403 No\r\n\r\n", "X-Virus-ID: Eicar\r\n")),
    );
    expect((await scan(it.service, "hello")).verdict).toEqual({ outcome: "infected", threat: "Eicar" });
    expect(it.service.stats().idle).toBe(1);
  });

  it.each(["hell", "he"])("that is the whole body ends with ieof, and its 204 counts (%s)", async (content) => {
    let received = "";
    await using it = await withPreview((peer) => {
      received = peer.received();
      peer.socket.write(CLEAN);
    });
    expect((await scan(it.service, content)).verdict.outcome).toBe("clean");
    expect(received).toContain(`\r\nPreview: ${content.length}\r\n`);
    expect(received.endsWith(`\r\n${content}\r\n0; ieof\r\n\r\n`)).toBe(true);
  });

  it.each([
    ["100 after ieof", "hell", CONTINUE],
    ["100 twice at once", "hello", CONTINUE + CONTINUE],
  ])("%s is an error", async (_, content, answer) => {
    await using it = await withPreview(({ socket }) => socket.write(answer));
    expect(await codeOf(scan(it.service, content))).toBe("protocol");
  });

  it("100 with a 204 at its heels is not clean", async () => {
    await using it = await withPreview(({ socket }) => socket.write(CONTINUE + CLEAN));
    expect((await scan(it.service, "hello")).verdict.outcome).toBe("error");
  });

  it("of no bytes lets the server say that it wants them", async () => {
    const received: string[] = [];
    await using it = await setUp(
      {
        options: options.replace("Preview: 4", "Preview: 0"),
        complete: (peer) => {
          received.push(peer.received());
          peer.socket.write(received.length === 1 ? CONTINUE : CLEAN);
        },
      },
      { preview: "required" },
    );
    expect((await scan(it.service, "hello")).verdict.outcome).toBe("clean");
    expect(received[0]).toMatch(/Content-Length: 5\r\n\r\n0\r\n\r\n$/);
    expect(received[1]).toBe("5\r\nhello\r\n0\r\n\r\n");
  });
});

describe("a preview that is trusted", () => {
  const options = OPTIONS.replace("Allow: 204", "Allow: 204\r\nPreview: 4");
  const trusting = (script: Script, more: Partial<IcapServiceOptions> = {}) =>
    setUp({ options, ...script }, { preview: "trusted", ...more });

  it("acquits: a 204 without the rest is clean, and the connection is used again", async () => {
    await using it = await trusting(clean);
    expect((await scan(it.service, "hello")).verdict).toEqual({ outcome: "clean", how: "204" });
    expect((await scan(it.service, "hello")).verdict.outcome).toBe("clean");
    expect(it.server.count).toMatchObject({ connections: 1, requests: 2 });
  });

  it("is followed by the rest where the server asks for it", async () => {
    let answers = 0;
    await using it = await trusting({ complete: ({ socket }) => socket.write(answers++ === 0 ? CONTINUE : CLEAN) });
    expect((await scan(it.service, "hello")).verdict.outcome).toBe("clean");
    expect(answers).toBe(2);
  });

  it.each([
    ["a 204 with a threat", CLEAN.replace("\r\n\r\n", "\r\nX-Virus-ID: Eicar\r\n\r\n"), "infected"],
    ["a 204 with a message", withBody("5\r\nhello\r\n0\r\n\r\n").replace("200 OK", "204 OK"), "error"],
    // It can't have the last byte but by guessing.
    ["an echo of the whole file", withBody("5\r\nhello\r\n0\r\n\r\n"), "error"],
    ["an echo of the preview", withBody("4\r\nhell\r\n0\r\n\r\n"), "error"],
    ["another body", withBody("3\r\nbye\r\n0\r\n\r\n"), "error"],
    ["100 Continue and a 204 at its heels", CONTINUE + CLEAN, "error"],
    ["a 206", withBody("5\r\nhello\r\n0\r\n\r\n").replace("200 OK", "206 OK"), "modified"],
    ["a 404", "ICAP/1.0 404 No\r\n\r\n", "error"],
  ])("is not clean by %s", async (_, answer, outcome) => {
    await using it = await trusting({ complete: ({ socket }) => socket.write(answer) });
    const { verdict, replacement } = await scan(it.service, "hello", { returned: () => Promise.resolve() });
    expect(verdict.outcome).toBe(outcome);
    expect(replacement).toBeUndefined();
  });

  it("has to be out: a 204 that comes in the middle of it acquits nothing", async () => {
    await using it = await trusting({ begin: ({ socket }) => socket.write(CLEAN) });
    const more = Promise.withResolvers<void>();
    const { verdict } = await scan(it.service, "hello", {
      async *body() {
        yield Buffer.from("he");
        await more.promise;
        yield Buffer.from("llo");
      },
    });
    expect(verdict.outcome).toBe("error");
    more.resolve();
  });

  it("acquits by REQMOD as well, and no more than that", async () => {
    const script = { options: options.replace("RESPMOD", "REQMOD") };
    await using acquitted = await trusting({ ...clean, ...script }, { method: "REQMOD" });
    expect((await scan(acquitted.service, "hello")).verdict.outcome).toBe("clean");
    const head = "POST http://media.invalid/file.bin HTTP/1.1\r\n\r\n";
    const echo = `ICAP/1.0 200 OK\r\nEncapsulated: req-hdr=0, req-body=${head.length}\r\n\r\n${head}5\r\nhello\r\n0\r\n\r\n`;
    await using echoing = await trusting({ complete: ({ socket }) => socket.write(echo), ...script }, { method: "REQMOD" });
    expect((await scan(echoing.service, "hello")).verdict.outcome).toBe("error");
  });
});

function lists(fields: string): string {
  return OPTIONS.replace("Allow: 204", `Allow: 204\r\nPreview: 4\r\n${fields}`);
}

describe("OPTIONS' lists of extensions", () => {
  it.each<[string, string, string, "ignored" | "whole" | "preview"]>([
    ["names it", "Transfer-Ignore: jpg\r\nTransfer-Complete: *", "a.jpg", "ignored"],
    ["names it in another case", "Transfer-Ignore: JPG", "a.JpG", "ignored"],
    ["names only what is before", "Transfer-Ignore: tar", "a.tar.gz", "whole"],
    ["names what it ends with", "Transfer-Ignore: gz", "a.tar.gz", "ignored"],
    ["names what it is called", "Transfer-Ignore: jpg", "jpg", "whole"],
    ["names what it is like", "Transfer-Ignore: jpg", "a.jpg ", "whole"],
    ["names all others", "Transfer-Complete: exe\r\nTransfer-Ignore: *", "a.jpg", "ignored"],
    ["names all others, and it has none", "Transfer-Complete: exe\r\nTransfer-Ignore: *", "readme", "ignored"],
    ["names another, all others being for another list", "Transfer-Complete: exe\r\nTransfer-Ignore: *", "a.exe", "whole"],
    ["names it as well", "Transfer-Ignore: exe\r\nTransfer-Complete: exe", "a.exe", "whole"],
    ["names it for a preview as well", "Transfer-Ignore: exe\r\nTransfer-Preview: exe", "a.exe", "preview"],
    ["names all others as well", "Transfer-Ignore: *\r\nTransfer-Preview: *", "a.exe", "preview"],
    ["names it for a preview", "Transfer-Preview: exe\r\nTransfer-Complete: *", "a.exe", "preview"],
    ["names all others for a preview", "Transfer-Preview: *\r\nTransfer-Complete: zip", "a.exe", "preview"],
    ["names others for a preview", "Transfer-Preview: *\r\nTransfer-Complete: zip", "a.zip", "whole"],
    ["does not name it", "Transfer-Preview: exe", "a.zip", "whole"],
    ["is empty", "Transfer-Ignore: ,", "readme.", "whole"],
  ])("decide when they are trusted and one %s (%s, %s)", async (_, fields, fileName, expected) => {
    let received = "";
    await using it = await setUp(
      { options: lists(fields), begin: (peer) => void (received = peer.received()), ...clean },
      { preview: "trusted", transferLists: "trusted" },
    );
    const { verdict, icapStatus, isTag } = await scan(it.service, "hello", { fileName });
    expect(verdict).toEqual({ outcome: "clean", how: expected === "ignored" ? "ignored" : "204" });
    expect({ icapStatus, isTag }).toEqual({ icapStatus: expected === "ignored" ? undefined : 204, isTag: "tag-1" });
    expect(it.server.count.requests).toBe(expected === "ignored" ? 0 : 1);
    expect(received.includes("\r\nPreview: 4\r\n")).toBe(expected === "preview");
  });

  it.each(["Transfer-Ignore: *", "Transfer-Ignore: exe", "Transfer-Complete: *", "Transfer-Preview: *"])(
    "decide nothing when they are not trusted (%s)",
    async (fields) => {
      const heads: string[] = [];
      await using it = await setUp(
        {
          options: lists(fields),
          begin: (peer) => void heads.push(peer.received()),
          complete: ({ socket }) => socket.write(withBody("0\r\n\r\n", "HTTP/1.1 403 No\r\n\r\n", "X-Virus-ID: Eicar\r\n")),
        },
        { preview: "required" },
      );
      expect((await scan(it.service, "hello", { fileName: "a.exe" })).verdict).toEqual({ outcome: "infected", threat: "Eicar" });
      expect(heads[0]).toContain("\r\nPreview: 4\r\n");
    },
  );

  it("bring no preview about where none is to be sent", async () => {
    let received = "";
    await using it = await setUp(
      { options: lists("Transfer-Preview: *"), begin: (peer) => void (received = peer.received()), ...clean },
      { transferLists: "trusted" },
    );
    await scan(it.service, "hello");
    expect(received).not.toContain("Preview");
  });

  it("let no file go unseen whose request could not be sent", async () => {
    await using it = await setUp({ options: lists("Transfer-Ignore: *") }, { transferLists: "trusted" });
    await expect(scan(it.service, "hello", { contentType: "" })).rejects.toThrow(TypeError);
  });
});
