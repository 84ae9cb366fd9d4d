import { setTimeout as sleep } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type IcapMethod, IcapService } from "../../../icap/index.ts";
import { codeOf, scan, until } from "../support/scan.ts";
import { OPTIONS, type Peer, scriptedServer } from "../support/scripted-server.ts";

const REQUEST = "POST http://media.invalid/file.bin HTTP/1.1\r\nHost: media.invalid\r\n\r\n";
const RESPONSE = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
const TRAILING_THREAT = "X-Virus-ID: Eicar\r\n";
const AT_ONCE = 8;
/** Batches; the first ones fill caches and compile code. */
const RUNS = 200;
const WARM_UP = 50;
/** What each body holds on to, so that a scan that is not let go of is seen. */
const BALLAST = 4096;
/** Bytes; some 0.5 MiB are compiled code and the like. */
const MAX_GROWTH = 2 * 1024 * 1024;
/** Milliseconds after which a server that is early is taken to have been. */
const EARLY = 20;

/** As long as the one in `REQUEST`. */
const nameOf = (at: number): string => `${String(at).padStart(4, "0")}.bin`;

interface Generated {
  readonly text: string;
  /** How it acquits, if it does, once it has come whole after everything was sent. */
  readonly acquits: "204" | "echo" | undefined;
}

/** The right value most of the time, so that all of an answer often is. */
function mostly<T>(right: T, ...wrong: readonly T[]): fc.Arbitrary<T> {
  return fc.oneof({ weight: 8, arbitrary: fc.constant(right) }, { weight: 2, arbitrary: fc.constantFrom(...wrong) });
}

const fields = fc.record({
  harmless: fc.subarray([
    'ISTag: "tag-1"\r\n',
    "X-Violations-Found: 0\r\n",
    "Connection: close\r\n",
    "X-Any: a\r\n b\r\n",
    "x-virus-id: No threats\r\n",
  ]),
  harmful: mostly(
    "",
    "X-Infection-Found: Type=0; Resolution=2; Threat=x;\r\n",
    "x-virus-id: \r\n",
    "X-Blocked: 0\r\n",
    ": x\r\n",
    " folded\r\n",
    "A\n",
  ),
});

const chunks = fc
  .record({
    bytes: mostly("hello", "hell", "hello!", "hellO", ""),
    cuts: fc.subarray([1, 2, 3, 4]),
    extension: mostly("", ";a=b", " ; ieof", ` ;${"x".repeat(2000)}`, "g"),
    zeros: mostly("", "000", "0".repeat(20)),
    end: mostly("0\r\n\r\n", `0\r\n${TRAILING_THREAT}\r\n`, "0;x=y\r\nX-Any: x\r\n\r\n", "0\r\n\r", "00\n\r\n", ""),
  })
  .map(({ bytes, cuts, extension, zeros, end }) => {
    const pieces = [0, ...cuts].map((from, at) => bytes.slice(from, cuts[at] ?? bytes.length)).filter((piece) => piece !== "");
    const text = pieces.map((piece) => `${zeros}${piece.length.toString(16)}${extension}\r\n${piece}\r\n`).join("") + end;
    const wellFormed = extension.length < 10 && extension !== "g" && zeros.length < 10 && /^0(;x=y\r\nX-Any: x)?\r\n(\r\n)?/.test(end);
    return { text, echoes: bytes === "hello" && wellFormed && end.endsWith("\r\n\r\n") && !end.includes(TRAILING_THREAT) };
  });

function answers(method: IcapMethod): fc.Arbitrary<Generated> {
  const head = method === "REQMOD" ? REQUEST : RESPONSE;
  const [hdr, body] = method === "REQMOD" ? ["req-hdr", "req-body"] : ["res-hdr", "res-body"];
  const echo = fc
    .record({
      fields,
      chunks,
      status: mostly("200", "204", "206", "201", "302", "500"),
      offset: mostly(0, 1, -1, 9_999_999),
      body: mostly(body, "opt-body"),
    })
    .map((it): Generated => ({
      text: `ICAP/1.0 ${it.status} OK\r\n${it.fields.harmful}${it.fields.harmless.join("")}Encapsulated: ${hdr}=0, ${it.body}=${head.length + it.offset}\r\n\r\n${head}${it.chunks.text}`,
      acquits:
        it.fields.harmful === "" && it.chunks.echoes && it.status === "200" && it.offset === 0 && it.body === body ? "echo" : undefined,
    }));
  const none = fc
    .record({
      fields,
      status: mostly("204", "200", "100", "404"),
      encapsulated: mostly("", "Encapsulated: null-body=0\r\n", "Encapsulated: res-body=0\r\n"),
    })
    .map(({ fields, status, encapsulated }): Generated => ({
      text: `ICAP/1.0 ${status} OK\r\n${fields.harmful}${fields.harmless.join("")}${encapsulated}\r\n`,
      acquits: fields.harmful === "" && status === "204" && !encapsulated.includes("res-body") ? "204" : undefined,
    }));
  return fc.oneof(echo, none);
}

const manners = fc.record({
  when: mostly<"complete" | "begin">("complete", "begin"),
  /** How much of it comes, and what becomes of the connection then. */
  part: mostly(1, 0.99, 0.9, 0.6, 0.3, 0),
  ending: mostly<"keep" | "end" | "reset">("end", "reset", "keep"),
  byBytes: mostly(false, true),
});

type Manner = typeof manners extends fc.Arbitrary<infer M> ? M : never;

function answer({ socket }: Peer, text: string, { ending, byBytes }: Manner): void {
  const pieces = byBytes ? text.split("") : [text];
  const next = (): void => {
    const piece = pieces.shift();
    if (!socket.writable) return;
    if (piece !== undefined) socket.write(piece, "latin1", next);
    else if (ending === "end") socket.end();
    else if (ending === "reset") socket.resetAndDestroy();
  };
  next();
}

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

/** Bytes that are still needed. */
function heap(): number {
  collectGarbage();
  return process.memoryUsage().heapUsed;
}

/** Those that keep the process alive. */
function timers(): number {
  return process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
}

describe.each<IcapMethod>(["RESPMOD", "REQMOD"])("any answer to %s", (method) => {
  it.each([
    ["never", 4, ["204", "echo"]],
    // A preview of all is no preview: its last chunk says so.
    ["required", 9, ["204", "echo"]],
    ["trusted", 9, ["204", "echo"]],
    ["trusted", 4, ["204"]],
    ["required", 4, []],
  ] as const)("is clean only where it proves it, and leaves nothing behind (preview %s, %i bytes)", async (preview, bytes, believed) => {
    const timersBefore = timers();
    const scripts: {
      readonly whole: string;
      readonly text: string;
      readonly manner: Manner;
    }[] = [];
    const script = (peer: Peer) => scripts[Number(/media\.invalid\/(\d+)/.exec(peer.received())?.[1])];
    await using server = await scriptedServer({
      options: OPTIONS.replace("RESPMOD", method).replace("Allow", `Preview: ${bytes}\r\nAllow`),
      begin: (peer) => {
        const it = script(peer);
        if (it?.manner.when === "begin") answer(peer, it.text, it.manner);
      },
      complete: (peer) => {
        const it = script(peer);
        if (it?.manner.when === "complete") answer(peer, it.text, it.manner);
      },
    });
    const service = new IcapService({ url: server.url, method, preview, maxConnections: AT_ONCE + 1, timeouts: { answer: 20_000 } });
    let acquittals: boolean[] = [];
    const tally = { clean: 0, other: 0, failed: 0 };

    const one = async (at: number): Promise<void> => {
      const { whole, text, manner } = scripts[at] ?? { whole: "", text: "", manner: undefined };
      const answered = Promise.withResolvers<void>();
      const ballast = Array.from({ length: BALLAST }, (_, index) => index + at);
      const body = async function* (): AsyncGenerator<Uint8Array> {
        if (ballast.length === 0) return;
        yield Buffer.from("hel");
        // What comes early is to be early for certain; what is cut off may never be noticed but by going on.
        if (manner?.when === "begin") await answered.promise;
        yield Buffer.from("lo");
      };
      if (text !== whole) setTimeout(answered.resolve, EARLY);
      const result = await codeOf(scan(service, "hello", { body, fileName: nameOf(at), returned: () => Promise.resolve() }));
      answered.resolve();
      const clean = JSON.stringify(result).includes('"outcome":"clean"');
      tally[clean ? "clean" : typeof result === "string" ? "failed" : "other"] += 1;
      const why = JSON.stringify({ text, manner, result });
      if (typeof result === "string") expect(["closed_early", "protocol", "limit"], why).toContain(result);
      else expect(result, why).toHaveProperty("resolved.verdict.outcome");
      // What stood in the system's buffers when a connection was reset may be lost.
      if (manner?.ending !== "reset" || clean) expect(clean, why).toBe(acquittals[at]);
    };
    let [runs, heapBefore] = [0, 0];
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(answers(method), manners), { minLength: AT_ONCE, maxLength: AT_ONCE }), async (batch) => {
        if (runs++ === WARM_UP) heapBefore = heap();
        scripts.length = 0;
        acquittals = [];
        for (const [at, [generated, manner]] of batch.entries()) {
          const whole = generated.text.replace("/file.bin", `/${nameOf(at)}`);
          const text = whole.slice(0, Math.floor(whole.length * manner.part));
          const proves = believed.some((how) => how === generated.acquits);
          const acquits = proves && text === whole && manner.when === "complete";
          // What says less and stays open is waited for; here nothing is.
          scripts.push({ whole, text, manner: acquits || manner.ending !== "keep" ? manner : { ...manner, ending: "end" } });
          acquittals.push(acquits);
        }
        await Promise.all(batch.map((_, at) => one(at)));
        expect(service.stats()).toMatchObject({ busy: 0, waiting: 0 });
      }),
      { numRuns: RUNS },
    );
    await service[Symbol.asyncDispose]();
    await until(() => server.count.open === 0);
    expect(service.stats()).toMatchObject({ open: 0, idle: 0, busy: 0, waiting: 0 });
    await sleep(2 * EARLY);
    expect(timers()).toBeLessThanOrEqual(timersBefore);
    expect(heap() - heapBefore).toBeLessThan(MAX_GROWTH);
    // Each of the three ends was reached often, or this test proves nothing.
    expect(Math.min(believed.length > 0 ? tally.clean : Infinity, tally.other, tally.failed), JSON.stringify(tally)).toBeGreaterThan(100);
  });
});
