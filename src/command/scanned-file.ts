/** A file as it is sent to be scanned. */
import { type BigIntStats, constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { codeOf } from "../errors.ts";

/** Bytes read at once. */
const PIECE = 256 * 1024;

const WHY: Readonly<Record<string, string>> = {
  ENOENT: "is not there",
  EACCES: "may not be read by this user",
  ELOOP: "is a link to itself",
  ENOTDIR: "lies in a file, as if that were a directory",
};

/** Why a file can't be scanned, in words that follow its name. */
export class FileError extends Error {
  override readonly name = "FileError";
  /** The system's code, or `not_a_file`, `changed`. */
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** A regular file, open; its size is what it was then. */
export class ScannedFile implements AsyncDisposable {
  readonly size: number;
  readonly #handle: FileHandle;
  readonly #before: BigIntStats;

  private constructor(handle: FileHandle, before: BigIntStats) {
    this.#handle = handle;
    this.#before = before;
    this.size = Number(before.size);
  }

  /** @throws FileError for what is no regular file or can't be opened. */
  static async open(path: string): Promise<ScannedFile> {
    // A pipe that nobody writes to would otherwise hold the open for ever.
    const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch(refuse);
    try {
      const stats = await handle.stat({ bigint: true }).catch(refuse);
      if (stats.isDirectory()) throw new FileError("not_a_file", "is a directory");
      if (!stats.isFile()) throw new FileError("not_a_file", "is no regular file, so its size is not known beforehand");
      return new ScannedFile(handle, stats);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** A pass over the bytes. @throws FileError when they can't be read, or end too soon. */
  async *read(): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < this.size;) {
      const length = Math.min(PIECE, this.size - at);
      const { bytesRead, buffer } = await this.#handle.read(Buffer.allocUnsafe(length), 0, length, at).catch(refuse);
      if (bytesRead === 0) throw changed();
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  }

  /** @throws FileError when it is not what it was when it was opened: what was read of it may never have stood there together. */
  async checkUnchanged(): Promise<void> {
    const now = await this.#handle.stat({ bigint: true }).catch(refuse);
    if (now.size !== this.#before.size || now.mtimeNs !== this.#before.mtimeNs || now.ctimeNs !== this.#before.ctimeNs) throw changed();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
  }
}

function changed(): FileError {
  return new FileError("changed", "changed while it was read");
}

function refuse(error: Error): never {
  const code = codeOf(error) ?? "unknown";
  throw new FileError(code, WHY[code] ?? `can't be read (${code})`, { cause: error });
}
