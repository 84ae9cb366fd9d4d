/** Looks at a file again and again. Notifications of the file system miss what happens on other machines, and to files that are replaced. */
import { stat } from "node:fs/promises";
import { codeOf } from "../errors.ts";

/** Milliseconds between two looks, so that a change is known within a second. */
const INTERVAL = 500;

export class FileWatch implements Disposable {
  readonly #timer: NodeJS.Timeout;
  #looking = false;

  /** @param look never rejects; it is not called again before it is done, however long a file system takes */
  constructor(look: () => Promise<void>) {
    this.#timer = setInterval(() => void this.#look(look), INTERVAL).unref();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  async #look(look: () => Promise<void>): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    try {
      await look();
    } finally {
      this.#looking = false;
    }
  }
}

/** Another one after any change, but for changes within one tick of the file system's clock; undefined when it is not there. @throws the system's errors. */
export async function signatureOf(path: string): Promise<string | undefined> {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
    return [dev, ino, size, mtimeNs, ctimeNs].join(":");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

const WHY: Readonly<Record<string, string>> = {
  ENOENT: "is not there",
  EACCES: "may not be read by this user",
  EISDIR: "is a directory",
  ENOTDIR: "lies in a file, as if that were a directory",
  ELOOP: "is a link to itself",
};

/** Why a file can't be read, in words that follow its name. */
export function whyUnreadable(error: unknown): string {
  const code = codeOf(error) ?? "unknown reason";
  return WHY[code] ?? `can't be read (${code})`;
}
