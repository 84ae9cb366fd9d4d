/** Overrides without Redis: the command line writes them into a file, and gateways read it again whenever it changes. */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { codeOf } from "../errors.ts";
import type { VerdictKeys } from "./keys.ts";
import { ForeignFileError, MAX_FILE_BYTES, OverridesFormat, type OverridesFile, type SealedLine } from "./overrides-format.ts";
import { fieldName, MAX_CLOCK_SKEW, MAX_OVERRIDES, OverrideLedger } from "./overrides-ledger.ts";
import { asideWords, learnAll, type SetAside } from "./overrides-learning.ts";
import { inTurns } from "./overrides-turns.ts";
import { counted, StandingProblems } from "./overrides-problems.ts";
import { FileWatch, signatureOf, whyUnreadable } from "./overrides-watch.ts";
import { type Override, OverrideError, type OverrideSource } from "./overrides.ts";
import type { StoreLog } from "./redis-link.ts";

export interface FileOverridesOptions {
  /** Need not be there yet. */
  readonly path: string;
  /** The deployment's, for this purpose alone. */
  readonly secret: Buffer;
  readonly keys: VerdictKeys;
  readonly log: StoreLog;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
  /** Overrides that are kept at most. */
  readonly most?: number;
}

/** What this process has read once stands, whatever becomes of the file, until the file says something newer. */
export class FileOverrides implements OverrideSource {
  readonly #path: string;
  readonly #format: OverridesFormat;
  readonly #now: () => number;
  readonly #most: number;
  readonly #ledger: OverrideLedger;
  readonly #problems: StandingProblems;
  /** What was read last, or could not be used. */
  #signature: string | undefined;
  /** When something that is from the future will be so no more. */
  #readAgainAt = Infinity;
  #watch: FileWatch | undefined;

  private constructor({ path, secret, keys, log, now = Date.now, most = MAX_OVERRIDES }: FileOverridesOptions) {
    this.#path = path;
    this.#format = new OverridesFormat(secret, keys);
    this.#now = now;
    this.#most = most;
    this.#ledger = new OverrideLedger(now, most);
    this.#problems = new StandingProblems(log);
  }

  /** Reads the file, and keeps watching it. @throws OverrideError when it is there and can't be read, or was written under another secret. */
  static async open(options: FileOverridesOptions): Promise<FileOverrides> {
    const overrides = new FileOverrides(options);
    try {
      overrides.#problems.set(await overrides.#read());
    } catch (error) {
      throw new OverrideError(`${options.path}: ${whyUnusable(error)}`, { cause: error });
    }
    overrides.#watch = new FileWatch(() => overrides.#look());
    return overrides;
  }

  of(digest: string): Override | undefined {
    return this.#ledger.of(digest);
  }

  forgottenAt(digest: string): number {
    return this.#ledger.forgottenAt(digest);
  }

  get allowsAny(): boolean {
    return this.#ledger.allowsAny;
  }

  health(): { readonly degraded: boolean; readonly problems: readonly string[] } {
    return this.#problems.health();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#watch?.[Symbol.dispose]();
    return Promise.resolve();
  }

  async #look(): Promise<void> {
    try {
      const signature = await signatureOf(this.#path);
      if (signature === this.#signature && signature !== undefined && this.#now() < this.#readAgainAt) return;
      this.#problems.set(await this.#read());
    } catch (error) {
      this.#problems.set([`${this.#path}: ${whyUnusable(error)}; what was known before stays`]);
    }
  }

  /** Learns what the file holds. @returns what is wrong with it */
  async #read(): Promise<string[]> {
    const signature = await signatureOf(this.#path);
    const bytes = await readOverridesFile(this.#path);
    // What can't be understood is not read again until it is another.
    this.#signature = signature;
    const file = await this.#format.parse(bytes ?? Buffer.alloc(0));
    const aside = await this.#learn(file);
    const lines = file.damaged.slice(0, 3).map(({ number }) => number);
    const missing = await this.#missing(file);
    return [
      ...(lines.length === 0 ? [] : [`${this.#path}:${lines.join(",")}: ${counted(file.damaged.length, "damaged line")} ignored`]),
      ...asideWords(aside, this.#most).map((problem) => `${this.#path}: ${problem}`),
      ...(missing === 0 ? [] : [`${this.#path}: lacks ${counted(missing, "override")} known here, which will be lost at the next start`]),
    ];
  }

  async #learn({ overrides }: OverridesFile): Promise<SetAside> {
    const aside = await learnAll(this.#ledger, overrides);
    this.#readAgainAt = aside.early.reduce((first, { record }) => Math.min(first, record.at - MAX_CLOCK_SKEW), Infinity);
    return aside;
  }

  async #missing({ overrides }: OverridesFile): Promise<number> {
    const there = new Map<string, number>();
    for await (const { digest, record } of inTurns(overrides)) there.set(fieldName(record.kind, digest), record.at);
    let missing = 0;
    for await (const { digest, record } of inTurns(this.#ledger.standing())) {
      if ((there.get(fieldName(record.kind, digest)) ?? -1) < record.at) missing += 1;
    }
    return missing;
  }
}

/** What a file holds, if it is there; damaged lines are told of in the log. @throws OverrideError when it can't be read, or was written under another secret. */
export async function overridesIn({ path, secret, keys, log }: FileOverridesOptions): Promise<readonly SealedLine[]> {
  try {
    const bytes = await readOverridesFile(path);
    if (bytes === undefined) return [];
    const { overrides, damaged } = await new OverridesFormat(secret, keys).parse(bytes);
    if (damaged.length > 0) log.warn({ path, damaged: damaged.length }, "damaged lines in the file of overrides are ignored");
    return overrides;
  } catch (error) {
    throw new OverrideError(`${path}: ${whyUnusable(error)}`, { cause: error });
  }
}

/** Undefined when it is not there. @throws the system's errors; ForeignFileError for what can't be such a file. */
export async function readOverridesFile(path: string): Promise<Buffer | undefined> {
  try {
    // Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
    await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const stats = await file.stat();
    if (!stats.isFile()) throw new ForeignFileError("is no regular file");
    if (stats.size > MAX_FILE_BYTES) throw new ForeignFileError(`is larger than ${MAX_FILE_BYTES} bytes`);
    const buffer = Buffer.alloc(stats.size);
    let length = 0;
    while (length < buffer.length) {
      const { bytesRead } = await file.read(buffer, length, buffer.length - length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    return buffer.subarray(0, length);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** In words that follow the file's name. */
export function whyUnusable(error: unknown): string {
  return error instanceof ForeignFileError ? error.message : whyUnreadable(error);
}
