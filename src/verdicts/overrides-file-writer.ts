/** Changes the file of overrides: whole or not at all, and one process at a time. */
import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, open, readdir, realpath, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { codeOf } from "../errors.ts";
import type { VerdictKeys } from "./keys.ts";
import { readOverridesFile, whyUnusable } from "./overrides-file.ts";
import { MAX_FILE_BYTES, OverridesFormat, type SealedLine } from "./overrides-format.ts";
import { fieldName, MAX_OVERRIDES, type OverrideChange, OverrideLedger, type OverrideRecord } from "./overrides-ledger.ts";
import { asideWords, learnAll } from "./overrides-learning.ts";
import { lockFile } from "./overrides-lock.ts";
import { counted } from "./overrides-problems.ts";
import { earlyError, type KeptOverrides, type OverrideWriter } from "./overrides-writer.ts";
import { OverrideError } from "./overrides.ts";

export interface OverrideFileWriterOptions {
  readonly path: string;
  readonly secret: Buffer;
  readonly keys: VerdictKeys;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
  readonly most?: number;
}

/** Milliseconds that another command may take with the file. */
const PATIENCE = 10_000;

interface Contents {
  readonly ledger: OverrideLedger;
  /** Of overrides, as they stand in the file. */
  readonly lines: ReadonlyMap<OverrideRecord, string>;
  readonly early: readonly SealedLine[];
  /** What can't be read, is from the future, or is too much: not ours to throw away. */
  readonly others: readonly string[];
  readonly problems: readonly string[];
}

export class OverrideFileWriter implements OverrideWriter {
  readonly #path: string;
  readonly #format: OverridesFormat;
  readonly #keys: VerdictKeys;
  readonly #now: () => number;
  readonly #most: number;

  constructor({ path, secret, keys, now = Date.now, most = MAX_OVERRIDES }: OverrideFileWriterOptions) {
    this.#path = path;
    this.#format = new OverridesFormat(secret, keys);
    this.#keys = keys;
    this.#now = now;
    this.#most = most;
  }

  async read(): Promise<KeptOverrides> {
    const { ledger, problems } = await this.#contents(this.#path);
    return { records: Array.from(ledger.standing(), ({ record }) => record), problems };
  }

  async readOf(sha256: Buffer): Promise<KeptOverrides> {
    const hex = sha256.toString("hex");
    const { records, problems } = await this.read();
    return { records: records.filter((record) => record.sha256 === hex), problems };
  }

  async write(sha256: Buffer, change: OverrideChange): Promise<void> {
    try {
      // Where the name is a link, the file that it leads to is replaced, and not the link.
      const path = await realpath(this.#path).catch((error: unknown) => orAbsent(error, this.#path));
      const owner = await ownerOf(path);
      await makeLock(`${path}.lock`, owner);
      using held = await lockFile(`${path}.lock`, PATIENCE);
      if (held === undefined) throw new OverrideError(`${path}: another command has been changing it for ${PATIENCE / 1000} s`);
      await removeLeftovers(path);
      await replace(path, this.#changed(await this.#contents(path), sha256, change), owner);
    } catch (error) {
      if (error instanceof OverrideError) throw error;
      throw new OverrideError(`${this.#path}: can't be written (${codeOf(error) ?? "unknown reason"})`, { cause: error });
    }
  }

  /** The file as it is to be. */
  #changed({ ledger, lines, early, others }: Contents, sha256: Buffer, change: OverrideChange): string {
    const digest = this.#keys.digest(sha256);
    const newer = early.find((sealed) => sealed.digest === digest);
    if (newer !== undefined) throw earlyError(newer.record, `line ${newer.number} of ${this.#path}`);
    const record = ledger.recordOf(digest, sha256, change);
    if (ledger.learn(digest, record) !== "new") throw this.#full();
    const kept = Array.from(
      ledger.standing(),
      (one) => lines.get(one.record) ?? this.#format.seal(fieldName(one.record.kind, one.digest), one.record),
    );
    const text = this.#format.print([...others, ...kept]);
    if (text.length > MAX_FILE_BYTES) throw this.#full();
    return text;
  }

  #full(): OverrideError {
    return new OverrideError(`${this.#path}: is full; no more than ${counted(this.#most, "override")} can be kept`);
  }

  async #contents(path: string): Promise<Contents> {
    try {
      const file = await this.#format.parse((await readOverridesFile(path)) ?? Buffer.alloc(0));
      const ledger = new OverrideLedger(this.#now, this.#most);
      const aside = await learnAll(ledger, file.overrides);
      const lines = new Map(file.overrides.map(({ record, line }) => [record, line]));
      const problems = asideWords(aside, this.#most).map((problem) => `${path}: ${problem}`);
      const damaged = file.damaged.map(({ number }) => `${path}:${number}: a damaged line is ignored`);
      const others = [...file.damaged, ...aside.early, ...aside.unplaced].map(({ line }) => line);
      return { ledger, lines, early: aside.early, others, problems: [...damaged, ...problems] };
    } catch (error) {
      throw new OverrideError(`${path}: ${whyUnusable(error)}`, { cause: error });
    }
  }
}

/** Who a new file should belong to: the command line is often run by root, and the gateway by a user of its own. */
interface Owner {
  readonly uid: number;
  readonly gid: number;
}

async function ownerOf(path: string): Promise<Owner> {
  return stat(path).catch((error: unknown) => orAbsent(error, stat(dirname(path))));
}

function orAbsent<T>(error: unknown, otherwise: T): T {
  if (codeOf(error) === "ENOENT") return otherwise;
  throw error;
}

/** Only where there is none: closing any handle of a file gives up all locks that this process has on it. */
async function makeLock(path: string, owner: Owner): Promise<void> {
  try {
    await (await openFor(owner, path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL)).close();
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw error;
  }
}

async function openFor({ uid, gid }: Owner, path: string, flags: number): Promise<FileHandle> {
  const file = await open(path, flags | constants.O_NOFOLLOW, 0o600);
  try {
    if (process.getuid?.() === 0) await file.chown(uid, gid);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** At every moment the name holds the old file or the new one, whole. */
async function replace(path: string, content: string, owner: Owner): Promise<void> {
  const temporary = join(dirname(path), `${temporaryPrefix(path)}${randomBytes(8).toString("hex")}`);
  try {
    {
      await using file = await openFor(owner, temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL);
      await file.writeFile(content, "latin1");
      await file.sync();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await using parent = await open(dirname(path), constants.O_RDONLY);
  await parent.sync();
}

/** Of commands that were killed: nobody else is at it while the lock is held. */
async function removeLeftovers(path: string): Promise<void> {
  for (const name of await readdir(dirname(path))) {
    if (name.startsWith(temporaryPrefix(path)) && /^[0-9a-f]{16}$/.test(name.slice(temporaryPrefix(path).length))) {
      await rm(join(dirname(path), name), { force: true });
    }
  }
}

function temporaryPrefix(path: string): string {
  return `.${basename(path)}.new-`;
}
