/** A text file of content to block: its SHA-256 in hex, one a line. */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import type { VerdictKeys } from "./keys.ts";
import { DigestSet } from "./overrides-digest-set.ts";
import { StandingProblems } from "./overrides-problems.ts";
import { FileWatch, signatureOf, whyUnreadable } from "./overrides-watch.ts";
import { type Override, OverrideError, type OverrideSource } from "./overrides.ts";
import type { StoreLog } from "./redis-link.ts";

export interface BlockListOptions {
  /** Blank lines, and what comes after a `#`, mean nothing. */
  readonly path: string;
  readonly keys: VerdictKeys;
  readonly log: StoreLog;
}

const MAX_BYTES = 64 * 1024 * 1024;
const MAX_LINES = 1_000_000;
/** Characters; a comment may be long, but not endless. */
const MAX_LINE = 4096;
/** Bytes of the shortest line that names a content. */
const SHORTEST = 65;
/** Bytes read at once: some thousand digests, which take a few milliseconds before others get their turn. */
const PIECE = 64 * 1024;

/** Without the blanks around it. */
const LINE = /^([0-9a-f]{64})?\s*(?:#.*)?$/i;
/** UTF-8's, read as Latin-1. */
const BYTE_ORDER_MARK = /^\u00ef\u00bb\u00bf/;

/** Why a list is not taken in, in words that follow its name. */
class MalformedListError extends Error {
  override readonly name = "MalformedListError";
}

interface List {
  readonly digests: DigestSet;
  /** When the file was last changed, in ms since the epoch. */
  readonly at: number;
}

/**
 * The list is always a whole one: a version that can't be read, or that holds anything else, changes nothing. Nor does one that names nothing, where the
 * list before it did: that is what a download that fails leaves behind.
 */
export class BlockList implements OverrideSource {
  readonly #path: string;
  readonly #keys: VerdictKeys;
  readonly #log: StoreLog;
  readonly #problems: StandingProblems;
  readonly #closed = new AbortController();
  #list: List;
  #watch: FileWatch | undefined;
  /** Of the version that was taken in or turned down; and of the one that was there at the last look. */
  #done: string | undefined;
  #seen: string | undefined;

  private constructor({ path, keys, log }: BlockListOptions, list: List) {
    this.#path = path;
    this.#keys = keys;
    this.#log = log;
    this.#problems = new StandingProblems(log);
    this.#list = list;
  }

  /** Reads the list, and keeps watching it. @throws OverrideError when it can't be used: without it, files would pass that must not. */
  static async open(options: BlockListOptions): Promise<BlockList> {
    try {
      const signature = await signatureOf(options.path);
      const list = await readList(options.path, options.keys);
      const blockList = new BlockList(options, list);
      options.log.info({ path: options.path, hashes: list.digests.size }, "the list of blocked hashes is read");
      blockList.#done = signature;
      blockList.#watch = new FileWatch(() => blockList.#look());
      return blockList;
    } catch (error) {
      throw new OverrideError(whyNot(options.path, error), { cause: error });
    }
  }

  of(digest: string): Override | undefined {
    if (!this.#list.digests.has(digest)) return undefined;
    return { kind: "block", reason: "on the list of blocked hashes", at: this.#list.at, expiresAt: undefined };
  }

  forgottenAt(): number {
    return -Infinity;
  }

  get allowsAny(): boolean {
    return false;
  }

  health(): { readonly degraded: boolean; readonly problems: readonly string[] } {
    return this.#problems.health();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#watch?.[Symbol.dispose]();
    this.#closed.abort();
    return Promise.resolve();
  }

  async #look(): Promise<void> {
    try {
      const signature = await signatureOf(this.#path);
      const settled = signature === this.#seen;
      this.#seen = signature;
      // A file that is being written is left alone until nothing more comes.
      if (signature !== undefined && (signature === this.#done || !settled)) return;
      const list = await readList(this.#path, this.#keys, this.#closed.signal);
      const [before, now] = [this.#list.digests.size, list.digests.size];
      if (now === 0 && before > 0) throw new MalformedListError(": names nothing any more; if that is meant, start the gateway anew");
      this.#list = list;
      this.#done = signature;
      this.#log.info({ path: this.#path, before, hashes: now }, "the list of blocked hashes is read anew");
      this.#problems.set([]);
    } catch (error) {
      if (this.#closed.signal.aborted) return;
      if (error instanceof MalformedListError) this.#done = this.#seen;
      this.#problems.set([`${whyNot(this.#path, error)}; the list before it stays`]);
    }
  }
}

/** @throws MalformedListError; the system's errors; the signal's reason. */
async function readList(path: string, keys: VerdictKeys, signal?: AbortSignal): Promise<List> {
  await using file = await openList(path);
  const stats = await file.stat({ bigint: true });
  if (stats.size > MAX_BYTES) throw new MalformedListError(`: is larger than ${MAX_BYTES / 1024 / 1024} MiB`);
  const digests = new DigestSet(Math.ceil((Number(stats.size) + 1) / SHORTEST));
  for await (const hashes of hashesOf(file, Number(stats.size))) {
    signal?.throwIfAborted();
    for (const hash of hashes) digests.add(keys.digest(Buffer.from(hash, "hex")));
  }
  const after = await file.stat({ bigint: true });
  if (after.size !== stats.size || after.mtimeNs !== stats.mtimeNs) throw new MalformedListError(": changed while it was read");
  return { digests, at: Number(stats.mtimeMs) };
}

/** Whether the list names this content now. @throws OverrideError */
export async function isOnBlockList(path: string, sha256: Buffer): Promise<boolean> {
  try {
    await using file = await openList(path);
    const wanted = sha256.toString("hex");
    for await (const hashes of hashesOf(file, MAX_BYTES)) {
      if (hashes.some((hash) => hash.toLowerCase() === wanted)) return true;
    }
    return false;
  } catch (error) {
    throw new OverrideError(whyNot(path, error), { cause: error });
  }
}

async function openList(path: string): Promise<FileHandle> {
  // Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    if (!(await file.stat()).isFile()) throw new MalformedListError(": is no regular file");
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** What the lines name, in hex, piece by piece. @param most bytes @throws MalformedListError for a line that is none. */
async function* hashesOf(file: FileHandle, most: number): AsyncGenerator<readonly string[]> {
  let number = 0;
  for await (const lines of linesOf(file, most)) {
    const hashes: string[] = [];
    for (const line of lines) {
      number += 1;
      if (number > MAX_LINES) throw new MalformedListError(`: has more than ${MAX_LINES} lines`);
      if (line.length > MAX_LINE) throw new MalformedListError(`:${number}: is longer than ${MAX_LINE} characters`);
      const found = LINE.exec((number === 1 ? line.replace(BYTE_ORDER_MARK, "") : line).trim());
      if (found === null) throw new MalformedListError(`:${number}: is no SHA-256 in hex`);
      if (found[1] !== undefined) hashes.push(found[1]);
    }
    yield hashes;
  }
}

async function* linesOf(file: FileHandle, most: number): AsyncGenerator<readonly string[]> {
  const piece = Buffer.allocUnsafe(PIECE);
  let rest = "";
  for (let at = 0; at < most;) {
    const { bytesRead } = await file.read(piece, 0, Math.min(PIECE, most - at), at);
    if (bytesRead === 0) break;
    at += bytesRead;
    const lines = (rest + piece.toString("latin1", 0, bytesRead)).split("\n");
    rest = lines.pop() ?? "";
    if (rest.length > MAX_LINE) lines.push(rest);
    yield lines;
  }
  if (rest !== "") yield [rest];
}

function whyNot(path: string, error: unknown): string {
  return error instanceof MalformedListError ? `${path}${error.message}` : `${path} ${whyUnreadable(error)}`;
}
