/**
 * A script as scanner, in the manner of the existing content scanners: it is run with the path of the decrypted file as its only argument, and
 * its exit status is the verdict. 0 is clean; what tells that it could not be run or was cut off is no verdict; any other is infected.
 */
import { lstat, stat } from "node:fs/promises";
import { GatewayError } from "../errors.ts";
import { Line } from "./line.ts";
import { runChild, type ChildEnd } from "./child-process.ts";
import { Deadline, waitFor } from "./deadline.ts";
import { PrivateDirectory, removeLeftovers, removeTree, type PrivateFile } from "./private-directory.ts";
import type { Identity, Scanner, ScannerHealth, ScanSubject, ScanVerdict, Stamp } from "./scanner.ts";
import { ScriptFile, type ScriptState } from "./script-file.ts";

export interface ScriptLog {
  warn(details: object, message: string): void;
  error(details: object, message: string): void;
}

export interface ScriptScannerOptions {
  /** A path, or the name of a program on PATH. It takes no arguments of its own. */
  readonly script: string;
  /** Where a directory for decrypted files is made; should be a tmpfs. */
  readonly directory: string;
  /** Milliseconds that one run may take. */
  readonly timeout: number;
  /** Exit statuses that are no verdict. */
  readonly exitCodesToIgnore: readonly number[];
  /** A command and its arguments, split at spaces, that is given the path to be removed. The file is removed whatever it does. */
  readonly removalCommand?: string;
  readonly maxConcurrent: number;
  readonly log: ScriptLog;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
  /** Milliseconds between two looks at the script and the directory. */
  readonly checkInterval?: number;
}

/** Statuses by which shells say that a program could not be run, or was not found. */
const NOT_RUN: ReadonlySet<number> = new Set([126, 127]);
const DEFAULT_CHECK_INTERVAL = 5000;

export class ScriptScanner implements Scanner {
  readonly name = "script";
  readonly policy: string;
  readonly needsType = false;
  readonly required = true;
  readonly identities: readonly Identity[] = [];
  readonly capacity: number;
  readonly #options: ScriptScannerOptions;
  readonly #now: () => number;
  readonly #line: Line;
  readonly #file: ScriptFile;
  readonly #removal: readonly string[];
  readonly #closing = new AbortController();
  readonly #running = new Set<Promise<unknown>>();
  /** Folders of decrypted files that could not be removed, of this process and of dead ones. As long as there are any, no more are written. */
  readonly #leftovers = new Set<string>();
  #script: ScriptState = { problem: "the script has not been looked at yet" };
  #tag: string | undefined;
  #directory: PrivateDirectory | undefined;
  #directoryProblem: string | undefined;
  #removalProblem: string | undefined;
  #check: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #logged = "";

  constructor(options: ScriptScannerOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.capacity = options.maxConcurrent;
    this.#line = new Line(options.maxConcurrent, Infinity);
    this.#file = new ScriptFile(options.script);
    this.#removal = (options.removalCommand ?? "rm").split(/\s+/).filter((part) => part !== "");
    this.policy = JSON.stringify(["script", options.script, options.exitCodesToIgnore.toSorted((a, b) => a - b)]);
  }

  health(): ScannerHealth {
    const blocking = this.#blocking();
    const disk = `${this.#options.directory} is not a tmpfs: decrypted files are written to a disk for the script`;
    return {
      ready: blocking.length === 0,
      problems: [
        ...blocking,
        ...(this.#directory?.inMemory === false ? [disk] : []),
        ...(this.#removalProblem === undefined ? [] : [this.#removalProblem]),
      ],
    };
  }

  /** What it said counts until its time is over. */
  readonly settled = Promise.resolve();

  async start(): Promise<void> {
    await this.#look();
    if (this.#closing.signal.aborted) return;
    this.#timer = setInterval(() => void this.#look(), this.#options.checkInterval ?? DEFAULT_CHECK_INTERVAL).unref();
  }

  async scan(subject: ScanSubject, signal: AbortSignal): Promise<ScanVerdict> {
    const work = this.#scanInTurn(subject, AbortSignal.any([signal, this.#closing.signal]));
    this.#running.add(work);
    try {
      return await work;
    } finally {
      this.#running.delete(work);
    }
  }

  /** A script that has changed since voids what it said before; one that is gone for now does not. */
  upholds(stamp: Stamp): boolean {
    return stamp.tag === this.#tag;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new GatewayError("shutting_down"));
    clearInterval(this.#timer);
    await Promise.allSettled([...this.#running, this.#check]);
    try {
      await this.#directory?.remove();
    } catch (error) {
      // The next start finds it, and does not go on without having removed it.
      this.#options.log.error({ scanner: this.name, why: codeOf(error) }, "decrypted files could not be removed");
    }
  }

  async #scanInTurn(subject: ScanSubject, signal: AbortSignal): Promise<ScanVerdict> {
    using _slot = await this.#line.acquire(signal);
    await this.#look();
    const script = this.#script;
    if (this.#directory === undefined || "problem" in script || this.#blocking().length > 0) throw unavailable(this.#blocking().join("; "));
    const file = await orUnavailable(this.#directory.create(), "a file for the script could not be made");
    try {
      await fill(file, subject, signal);
      return await this.#judge(script, file, signal);
    } finally {
      await this.#remove(file);
    }
  }

  async #judge(script: { path: string; tag: string }, file: PrivateFile, signal: AbortSignal): Promise<ScanVerdict> {
    const before = await orUnavailable(stat(file.path, { bigint: true }), "the file for the script is gone");
    const { code, signal: killer } = await this.#run(script.path, [], file, signal);
    const stamp: Stamp = { tag: script.tag, at: this.#now() };
    if (code === null) throw unavailable(`the script was ended by ${killer}`);
    if (NOT_RUN.has(code) || (code !== 0 && this.#options.exitCodesToIgnore.includes(code))) {
      throw unavailable(`the script ended with status ${code}, which is no verdict`);
    }
    if (code !== 0) return { outcome: "infected", stamp, threat: `script exit status ${code}` };

    // Clean is what was looked at and left alone, by the script that is there still.
    const after = await orUnavailable(lstat(file.path, { bigint: true }), "the file was gone before the script had ended");
    if (after.ino !== before.ino || after.size !== before.size || after.mtimeNs !== before.mtimeNs) {
      return { outcome: "infected", stamp, threat: "the script changed the file" };
    }
    const now = await this.#file.look();
    if ("problem" in now || now.tag !== script.tag) throw unavailable("the script was changed while it ran");
    return { outcome: "clean", stamp };
  }

  /** Runs a program on the file, within the time limit. */
  async #run(command: string, parameters: readonly string[], file: PrivateFile, signal?: AbortSignal): Promise<ChildEnd> {
    const limit = this.#options.timeout;
    using deadline = new Deadline(
      limit,
      () => unavailable(`${command} was killed after ${limit} ms`),
      ...(signal === undefined ? [] : [signal]),
    );
    const env = {
      PATH: process.env["PATH"] ?? "/usr/local/bin:/usr/bin:/bin",
      LANG: process.env["LANG"] ?? "C.UTF-8",
      // What it unpacks goes where the file is, and is removed with it.
      TMPDIR: file.folder,
    };
    return await orUnavailable(
      runChild(command, [...parameters, file.path], env, deadline.signal),
      `${command} could not be run`,
      deadline.signal,
    );
  }

  /** Removes the file whatever happens; never rejects. Not aborted by anything, for nothing may be left behind. */
  async #remove(file: PrivateFile): Promise<void> {
    if (this.#removal.length > 0 && this.#removal.join(" ") !== "rm") await this.#runRemoval(file);
    try {
      await removeTree(file.folder);
    } catch (error) {
      this.#leftovers.add(file.folder);
      this.#options.log.error({ scanner: this.name, why: codeOf(error) }, "a decrypted file could not be removed");
    }
  }

  async #runRemoval(file: PrivateFile): Promise<void> {
    const [command = "", ...parameters] = this.#removal;
    try {
      const exists = await lstat(file.path).catch(() => undefined);
      if (exists === undefined) return;
      const { code } = await this.#run(command, parameters, file);
      if (code !== 0) throw unavailable(`${command} ended with status ${code}`);
      this.#removalProblem = undefined;
    } catch (error) {
      const why = error instanceof Error ? error.message : "unknown error";
      const problem = `the removal command ${command} failed, so files are unlinked instead`;
      if (this.#removalProblem === undefined) this.#options.log.error({ scanner: this.name, why }, problem);
      this.#removalProblem = problem;
    }
  }

  #blocking(): string[] {
    return [
      ...("problem" in this.#script ? [this.#script.problem] : []),
      ...(this.#directoryProblem === undefined ? [] : [this.#directoryProblem]),
      ...(this.#leftovers.size === 0 ? [] : [`decrypted files could not be removed: ${[...this.#leftovers].slice(0, 3).join(", ")}`]),
    ];
  }

  /** Looks at all that a scan needs, and mends what it can. Never rejects. */
  async #look(): Promise<void> {
    this.#check ??= this.#lookOnce();
    try {
      await this.#check;
    } finally {
      this.#check = undefined;
    }
  }

  async #lookOnce(): Promise<void> {
    this.#script = await this.#file.look();
    if ("tag" in this.#script) this.#tag = this.#script.tag;
    for (const folder of this.#leftovers) {
      await removeTree(folder).then(
        () => this.#leftovers.delete(folder),
        () => false,
      );
    }
    await this.#lookAtDirectory();
    const problems = this.health().problems.join("; ");
    if (problems !== this.#logged && problems !== "") this.#options.log.warn({ scanner: this.name }, problems);
    this.#logged = problems;
  }

  async #lookAtDirectory(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    try {
      // Whoever cleans the parent directory may have removed it.
      if (this.#directory !== undefined && !(await this.#directory.exists())) {
        await this.#directory.remove();
        this.#directory = undefined;
      }
      if (this.#directory === undefined) {
        for (const left of await removeLeftovers(this.#options.directory)) this.#leftovers.add(left);
        this.#directory = await PrivateDirectory.open(this.#options.directory);
      }
      this.#directoryProblem = undefined;
    } catch (error) {
      this.#directoryProblem = `no directory for decrypted files could be made in ${this.#options.directory}: ${codeOf(error)}`;
    }
  }
}

/**
 * Writes all bytes of the subject, and closes the file.
 * @throws GatewayError `scanner_unavailable` when the disk fails; what the subject throws; the signal's reason.
 */
async function fill(file: PrivateFile, subject: ScanSubject, signal: AbortSignal): Promise<void> {
  const bytes = subject.open()[Symbol.asyncIterator]();
  let size = 0;
  try {
    for (;;) {
      signal.throwIfAborted();
      const next = await waitFor(bytes.next(), signal);
      if (next.done === true) break;
      size += next.value.length;
      await orUnavailable(file.handle.writeFile(next.value), "the file for the script could not be written");
    }
  } catch (error) {
    await file.handle.close().catch(() => undefined);
    // The source may be waiting for bytes that never come; it is told, not waited for.
    void bytes.return?.().catch(() => undefined);
    throw error;
  }
  await orUnavailable(file.handle.close(), "the file for the script could not be written");
  if (size !== subject.size) throw unavailable(`${size} bytes came instead of ${subject.size}`);
}

function unavailable(detail: string, cause?: unknown): GatewayError {
  return new GatewayError("scanner_unavailable", { detail, cause });
}

/** The system's errors as `scanner_unavailable`; those of an aborted signal as they are. */
async function orUnavailable<T>(work: Promise<T>, what: string, signal?: AbortSignal): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw signal?.aborted === true ? error : unavailable(`${what}: ${codeOf(error)}`, error);
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "unknown error";
}
