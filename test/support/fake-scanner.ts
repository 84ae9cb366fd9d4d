/** A scanner that knows EICAR wherever it stands, and that can be told to hold, fail, misjudge or send something else back. */
import { EICAR } from "../../src/scan/canary-samples.ts";
import { GatewayError } from "../../src/errors.ts";
import { waitFor } from "../../src/scan/deadline.ts";
import type {
  Identity,
  Replacement,
  ScanContext,
  Scanner,
  ScannerHealth,
  ScanSubject,
  ScanVerdict,
  Stamp,
} from "../../src/scan/scanner.ts";

export class FakeScanner implements Scanner {
  readonly name: string;
  readonly policy = "fake";
  needsType = false;
  readonly required: boolean;
  readonly identities: readonly Identity[];
  capacity = 8;
  tag = "signatures-1";
  /** What was scanned to the end, in order. */
  readonly scanned: Buffer[] = [];
  /** Whom it was told of, scan by scan. */
  readonly told: (ScanContext | undefined)[] = [];
  /** What it was told of the bytes' type, and whether it was offered a place for a replacement, scan by scan. */
  readonly offered: { readonly mime: string | undefined; readonly place: boolean }[] = [];
  /** Scans that have begun. */
  begun = 0;
  /** Scans that were cancelled. */
  cancelled = 0;
  /** Awaited before each verdict. */
  hold: Promise<unknown> | undefined;
  /** Reads no more than the first bytes for as long as this is there. */
  slow: Promise<unknown> | undefined;
  /** Thrown in place of a verdict. */
  failure: Error | undefined;
  /** What is thrown in place of a verdict on these bytes, if anything. */
  failsOver: ((media: Buffer) => Error | undefined) | undefined;
  unscannable: string | undefined;
  modified: string | undefined;
  /** Makes of media what is sent back in its stead, where there is a place for it; undefined: it is clean. */
  replaces: ((media: Buffer) => Buffer | undefined) | undefined;
  /** What is infected. */
  finds: Buffer = EICAR;
  /** What it can't look into. */
  unreadable: Buffer | undefined;
  /** Does not say that what it sent in the media's stead was all. */
  unended = false;
  /** Answers once the first bytes are there. */
  impatient = false;
  ready = true;
  settled: Promise<void> = Promise.resolve();

  constructor(name = "fake", more: { readonly required?: boolean; readonly identities?: readonly Identity[] } = {}) {
    this.name = name;
    this.required = more.required ?? true;
    this.identities = more.identities ?? [];
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
    this.told.push(subject.context);
    this.offered.push({ mime: subject.type?.mime, place: subject.replacement !== undefined });
    const count = (): void => void (this.cancelled += 1);
    signal.addEventListener("abort", count);
    try {
      return await this.#judge(subject, signal);
    } finally {
      signal.removeEventListener("abort", count);
    }
  }

  async #judge(subject: ScanSubject, signal: AbortSignal): Promise<ScanVerdict> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of subject.open()) {
      signal.throwIfAborted();
      chunks.push(Buffer.from(chunk));
      if (this.slow !== undefined) await waitFor(this.slow, signal);
      if (this.impatient) break;
    }
    if (this.hold !== undefined) await waitFor(this.hold, signal);
    signal.throwIfAborted();
    if (this.failure !== undefined) throw this.failure;
    const bytes = Buffer.concat(chunks);
    if (bytes.length !== subject.size && !this.impatient) throw new Error(`announced ${subject.size} bytes, got ${bytes.length}`);
    const failure = this.failsOver?.(bytes);
    if (failure !== undefined) throw failure;
    this.scanned.push(bytes);
    const stamp = { tag: this.tag, at: Date.now() };
    if (this.modified !== undefined) return { outcome: "modified", why: this.modified, stamp };
    if (this.unscannable !== undefined) return { outcome: "unscannable", why: this.unscannable, stamp };
    const made = this.replaces?.(bytes);
    if (made !== undefined) {
      const replacement = await this.#replacement(subject, made);
      return { outcome: "modified", why: "replaced", stamp, ...(replacement === undefined ? {} : { replacement }) };
    }
    if (this.unreadable !== undefined && bytes.includes(this.unreadable)) return { outcome: "unscannable", why: "for a reason", stamp };
    return bytes.includes(this.finds) ? { outcome: "infected", threat: "Eicar", stamp } : { outcome: "clean", stamp };
  }

  async #replacement(subject: ScanSubject, bytes: Buffer): Promise<Replacement | undefined> {
    const replacement = await subject.replacement?.();
    if (replacement === undefined) return undefined;
    try {
      for (let from = 0; from < bytes.length; from += 100_000) await replacement.write(bytes.subarray(from, from + 100_000));
      if (!this.unended) replacement.end();
      return replacement;
    } catch (error) {
      await replacement[Symbol.asyncDispose]();
      // As a client library may tell it: the reason is lost on the way.
      throw new GatewayError("scanner_unavailable", { cause: error });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
