/** Small text files that an operator names. */
import { open } from "node:fs/promises";

/** Why a file can't be used, in words that follow its name. */
export class UnusableFileError extends Error {
  override readonly name = "UnusableFileError";
}

const WHY_UNREADABLE: Readonly<Record<string, string>> = {
  ENOENT: "is not there",
  EACCES: "may not be read by this user",
  EISDIR: "is a directory",
};

/**
 * @param limit bytes; a pipe or device is read no further, whatever it claims to hold
 * @throws UnusableFileError
 */
export async function readTextFile(path: string, limit: number): Promise<string> {
  const bytes = await readBounded(path, limit + 1).catch((error: NodeJS.ErrnoException) => {
    throw new UnusableFileError(WHY_UNREADABLE[error.code ?? ""] ?? `can't be read (${error.code ?? "unknown reason"})`, { cause: error });
  });
  if (bytes.length > limit) throw new UnusableFileError(`is larger than ${limit / 1024} KiB, so it can't be the right file`);
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    if (!text.includes("\0")) return text;
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
  }
  throw new UnusableFileError("is not UTF-8 text");
}

async function readBounded(path: string, limit: number): Promise<Buffer> {
  await using file = await open(path);
  const buffer = Buffer.alloc(limit);
  let length = 0;
  while (length < limit) {
    const { bytesRead } = await file.read(buffer, length, limit - length);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return buffer.subarray(0, length);
}
