/** The program that is run as scanner: where it is, whether it can be run, and which version of it is there. */
import { createHash } from "node:crypto";
import { constants, createReadStream } from "node:fs";
import { access, stat } from "node:fs/promises";
import { delimiter, join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";

export type ScriptState = { readonly path: string; readonly tag: string } | { readonly problem: string };

export class ScriptFile {
  readonly #script: string;
  /** Of the file that the digest was made of; as long as it is the same, so is the digest. */
  #identity = "";
  #digest = "";

  /** @param script a path, or the name of a program on PATH. */
  constructor(script: string) {
    this.#script = script;
  }

  /** The script as it is now; its tag changes with its content. Or what is wrong with it, in words for an operator. */
  async look(): Promise<ScriptState> {
    let problem = `${this.#script}: no such program`;
    for (const path of this.#candidates()) {
      try {
        const stats = await stat(path, { bigint: true });
        await access(path, constants.X_OK);
        if (!stats.isFile()) problem = `${path} is not a file`;
        // The system would have a shell run it, which would do nothing and call that a success.
        else if (stats.size === 0n) problem = `${path} is empty`;
        else return { path, tag: await this.#digestOf(path, `${path} ${stats.dev} ${stats.ino} ${stats.size} ${stats.mtimeNs}`) };
      } catch (error) {
        const code = error instanceof Error && "code" in error ? String(error.code) : "unknown error";
        if (code !== "ENOENT") problem = code === "EACCES" ? `${path} may not be read and executed by this user` : `${path}: ${code}`;
      }
    }
    return { problem };
  }

  #candidates(): string[] {
    if (this.#script.includes("/")) return [resolve(this.#script)];
    const directories = (process.env["PATH"] ?? "").split(delimiter).filter((directory) => directory !== "");
    return directories.map((directory) => resolve(join(directory, this.#script)));
  }

  async #digestOf(path: string, identity: string): Promise<string> {
    if (identity === this.#identity) return this.#digest;
    const hash = createHash("sha256");
    await pipeline(createReadStream(path), hash);
    const digest = hash.digest("hex");
    this.#identity = identity;
    this.#digest = digest;
    return digest;
  }
}
