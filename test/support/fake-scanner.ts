/** A scanner that knows EICAR wherever it stands, and that can be told to hold, fail or misjudge. */
import type { Scanner, ScannerHealth, ScanSubject, ScanVerdict, Stamp } from "../../src/scan/scanner.ts";
import { EICAR } from "../../src/scan/canary-samples.ts";

export class FakeScanner implements Scanner {
  readonly name: string;
  readonly policy = "fake";
  needsType = false;
  readonly capacity = 8;
  tag = "signatures-1";
  /** What was scanned to the end, in order. */
  readonly scanned: Buffer[] = [];
  /** Scans that have begun. */
  begun = 0;
  /** Awaited before each verdict. */
  hold: Promise<unknown> | undefined;
  /** Thrown in place of a verdict. */
  failure: Error | undefined;
  unscannable: string | undefined;
  modified: string | undefined;
  ready = true;

  constructor(name = "fake") {
    this.name = name;
  }

  health(): ScannerHealth {
    return { ready: this.ready, problems: this.ready ? [] : [`${this.name}: told not to be ready`] };
  }

  start(): Promise<void> {
    return Promise.resolve();
  }

  upholds(stamp: Stamp): boolean {
    return stamp.tag === this.tag;
  }

  async scan(subject: ScanSubject, signal: AbortSignal): Promise<ScanVerdict> {
    this.begun += 1;
    const chunks: Uint8Array[] = [];
    for await (const chunk of subject.open()) {
      signal.throwIfAborted();
      chunks.push(Buffer.from(chunk));
    }
    await this.hold;
    signal.throwIfAborted();
    if (this.failure !== undefined) throw this.failure;
    const bytes = Buffer.concat(chunks);
    if (bytes.length !== subject.size) throw new Error(`announced ${subject.size} bytes, got ${bytes.length}`);
    this.scanned.push(bytes);
    const stamp = { tag: this.tag, at: Date.now() };
    if (this.modified !== undefined) return { outcome: "modified", why: this.modified, stamp };
    if (this.unscannable !== undefined) return { outcome: "unscannable", why: this.unscannable, stamp };
    return bytes.includes(EICAR) ? { outcome: "infected", threat: "Eicar", stamp } : { outcome: "clean", stamp };
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
