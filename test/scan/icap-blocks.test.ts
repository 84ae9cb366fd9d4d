import { describe, expect, it } from "vitest";
import { recorded } from "../icap/support/answers.ts";
import { CLEAN, type Peer, scriptedServer } from "../icap/support/scripted-server.ts";
import { scannerOf, subject } from "../support/antivirus.ts";

const FILE = Buffer.from("the file");
const infected = recorded("infected").toString("latin1");

const TAG = 'ISTag: "tag-1"\r\n';
const CAUGHT = infected.replace(/ISTag: .*\r\n/, TAG);
const HARMLESS = CLEAN.replace("\r\n\r\n", `\r\n${TAG}\r\n`);

/** Catches its canaries under one tag, and says this of the file. */
function server(answer: (peer: Peer) => void) {
  return scriptedServer({
    complete: (peer) => {
      if (peer.received().includes(FILE.toString("latin1"))) answer(peer);
      else peer.socket.write(peer.received().includes("harmless") ? HARMLESS : CAUGHT, "latin1");
    },
  });
}

async function ask(answer: (peer: Peer) => void) {
  await using open = await server(answer);
  const { scanner } = await scannerOf([open.url], { canaries: ["plain"] });
  await using started = scanner;
  await started.start();
  return await started.scan(subject(FILE), AbortSignal.timeout(20_000)).then(
    ({ outcome }) => outcome,
    (error: { readonly code?: unknown }) => error.code,
  );
}

describe("a block is a block", () => {
  it("under another ISTag than the one that is proven", async () => {
    expect(await ask(({ socket }) => void socket.write(infected.replace(/ISTag: .*\r\n/, 'ISTag: "tag-2"\r\n'), "latin1"))).toBe(
      "infected",
    );
  });

  it("whose page is cut off", async () => {
    expect(await ask(({ socket }) => void socket.end(infected.slice(0, -40), "latin1"))).toBe("infected");
  });

  it("or may be one, where the answer can't be read: no leniency with services that are away covers that", async () => {
    expect(await ask(({ socket }) => void socket.end("ICAP/1.0 200 OK\r\nX-Infection-Found: \r", "latin1"))).toBe("unclear_verdict");
    expect(await ask(({ socket }) => void socket.destroy())).toBe("scanner_unavailable");
  });
});
