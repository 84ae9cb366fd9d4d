import { onTestFinished } from "vitest";
import { type IcapHandler, type IcapReply, type IcapRequest, IcapServer, signatureService } from "../../icap/index.ts";
import { type CanaryKind, EICAR } from "../../src/scan/canary-samples.ts";
import { IcapScanner, type IcapScannerOptions } from "../../src/scan/icap-scanner.ts";
import type { ScanSubject } from "../../src/scan/scanner.ts";

/** An antivirus that finds EICAR, and that tests can take apart. */
export class Antivirus implements AsyncDisposable {
  tag = "tag-1";
  /** What it lets pass, as a broken engine does. */
  blind = false;
  /** Its own errors, as c-icap has them without its engine. */
  failing = false;
  /** Bodies in order, canaries included. */
  readonly seen: Buffer[] = [];
  /** Runs before each answer. */
  before: (body: Buffer) => void = () => undefined;
  /** Awaited before each answer; what it answers is decided before that. */
  hold: (body: Buffer) => Promise<void> = () => Promise.resolve();
  /** Answers with a page of its own and a 200, as some DLP do. */
  page = false;
  /** What it was asked, beside `seen`. */
  readonly asked: IcapRequest[] = [];
  /** In place of one that knows EICAR. */
  table: IcapHandler | undefined;
  /** How often OPTIONS or an answer asked for the ISTag. */
  tagsAsked = 0;
  #server: IcapServer | undefined;
  #port = 0;

  async start(): Promise<string> {
    const knows = signatureService({ signatures: [{ threat: "Eicar", contains: EICAR }], table: { isTag: () => this.#tag() } });
    const handler: IcapHandler = { table: knows.table, handle: (request) => this.#handle(request, this.table ?? knows) };
    this.#server = new IcapServer({ services: { scan: handler } });
    const { port } = await this.#server.listen(this.#port, "127.0.0.1");
    this.#port = port;
    return `icap://127.0.0.1:${port}/scan`;
  }

  async #handle(request: IcapRequest, knows: IcapHandler): Promise<IcapReply> {
    const body = Buffer.concat(await Array.fromAsync(request.body));
    this.seen.push(body);
    this.asked.push(request);
    this.before(body);
    const answer = this.#answer(request, body, knows);
    await this.hold(body);
    return answer;
  }

  #answer(request: IcapRequest, body: Buffer, knows: IcapHandler): Promise<IcapReply> | IcapReply {
    if (this.failing) return { status: 500 };
    if (this.blind) return { status: 204 };
    if (this.page) return { status: 200, http: { startLine: "HTTP/1.1 200 OK", fields: [], body: Buffer.from("blocked") } };
    return knows.handle({ ...request, body: once(body) });
  }

  #tag(): string {
    this.tagsAsked += 1;
    return this.tag;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server?.[Symbol.asyncDispose]();
  }
}

export interface Entry {
  readonly what: "proven" | "broken" | "down" | "suspended" | "missed" | "caught" | "size" | "learned";
  readonly why: string;
}

export async function scannerOf(
  urls: readonly string[],
  more: Partial<IcapScannerOptions> = {},
): Promise<{ scanner: IcapScanner; entries: Entry[] }> {
  const made = unstartedScannerOf(urls, more);
  await made.scanner.start();
  return made;
}

export function unstartedScannerOf(
  urls: readonly string[],
  more: Partial<IcapScannerOptions> = {},
): { scanner: IcapScanner; entries: Entry[] } {
  const entries: Entry[] = [];
  const scanner = new IcapScanner({
    name: "antivirus",
    services: urls.map((url) => ({ url, timeouts: { connect: 10_000, answer: 3_600_000 } })),
    canaries: ["plain", "zip", "pdf"],
    canaryInterval: 3_600_000,
    canaryTimeout: 5000,
    log: {
      proven: (_service, why) => entries.push({ what: "proven", why }),
      unproven: (_service, what, why) => entries.push({ what, why }),
      missed: (_service, kind: CanaryKind, missed) => entries.push({ what: missed ? "missed" : "caught", why: kind }),
      sizeProven: (_service, _tag, size) => entries.push({ what: "size", why: String(size) }),
      doubtsLearned: (_service, doubts) => entries.push(...doubts.map(({ of: why }) => ({ what: "learned" as const, why }))),
    },
    maxFileSize: 4 * 1024 * 1024,
    proveSize: false,
    suspend: { failures: 5, within: 30_000, pause: 5_000, maxPause: 300_000 },
    ...more,
  });
  onTestFinished(() => scanner[Symbol.asyncDispose]());
  return { scanner, entries };
}

export function subject(bytes: Buffer): ScanSubject {
  return { size: bytes.length, type: undefined, open: () => once(bytes) };
}

export async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}
