/**
 * A directory that only this process' user may enter, for decrypted files that a script must see as files. It is known to be in use by a socket
 * that this process listens on: process IDs would mislead where containers share a directory. One whose socket nobody listens on any more was left behind
 * by a process that died, and is removed.
 */
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { constants } from "node:fs";
import { chmod, lstat, mkdtemp, open, readdir, rename, rm, rmdir, statfs, unlink, type FileHandle } from "node:fs/promises";
import { connect, createServer, type Server } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const PREFIX = "matrix-icap-gateway-script-";
const SOCKET = "alive";
/** Milliseconds that a new directory, empty, may take to get its socket. */
const SETTLING = 60_000;
/** Milliseconds after which a socket that nobody listens to has been left. */
const BIRTH = 200;
/** `f_type` of tmpfs and ramfs, statfs(2). */
const MEMORY_FILE_SYSTEMS: ReadonlySet<number> = new Set([0x01021994, 0x858458f6]);
const FLAGS = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/** A file of mode 0600 in a directory of its own, of mode 0700, where whoever reads it may put files beside it. */
export interface PrivateFile {
  readonly folder: string;
  readonly path: string;
  readonly handle: FileHandle;
}

export class PrivateDirectory {
  readonly path: string;
  /** Whether what is written there stays in memory. */
  readonly inMemory: boolean;
  readonly #server: Server;

  private constructor(path: string, inMemory: boolean, server: Server) {
    this.path = path;
    this.inMemory = inMemory;
    this.#server = server;
  }

  /** Makes a directory in `parent`. @throws the system's errors. */
  static async open(parent: string): Promise<PrivateDirectory> {
    const path = await mkdtemp(join(parent, PREFIX));
    try {
      const server = createServer((socket) => socket.destroy());
      // Of this process alone: a worker's would otherwise be its primary's, and outlive it.
      server.listen({ path: join(path, SOCKET), exclusive: true });
      await once(server, "listening");
      server.unref();
      return new PrivateDirectory(path, MEMORY_FILE_SYSTEMS.has((await statfs(path)).type), server);
    } catch (error) {
      await removeTree(path);
      throw error;
    }
  }

  /** A new, empty file. @throws the system's errors; nothing is left then. */
  async create(): Promise<PrivateFile> {
    const folder = await mkdtemp(join(this.path, "file-"));
    try {
      const path = join(folder, "media");
      return { folder, path, handle: await open(path, FLAGS, 0o600) };
    } catch (error) {
      await removeTree(folder);
      throw error;
    }
  }

  async exists(): Promise<boolean> {
    return lstat(this.path).then(
      (stats) => stats.isDirectory(),
      () => false,
    );
  }

  /** Removes it with all that is in it. Idempotent. @throws the system's errors. */
  async remove(): Promise<void> {
    await new Promise((resolve) => this.#server.close(resolve));
    await removeTree(this.path);
  }
}

/**
 * Removes a folder with all that is in it, also where somebody's archive was unpacked: folders that may not be read or written, and paths longer
 * than the system takes. Follows no links. Removes what it can before it throws. Nothing there is success.
 * @throws the system's error for the first thing that could not be removed.
 */
export async function removeTree(path: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true });
  } catch {
    await dismantle(path);
  }
}

/** Every folder is opened and moved up to the root before it is emptied, so that no path grows with the depth. */
async function dismantle(root: string): Promise<void> {
  const failures: unknown[] = [];
  const note = (error: unknown): void => void failures.push(error);
  await unlock(root);
  const folders = [root];
  for (const folder of folders) {
    // Names as they are: they need not be UTF-8.
    const entries = await readdir(folder, { withFileTypes: true, encoding: "buffer" }).catch(note);
    for (const entry of entries ?? []) {
      const path = Buffer.concat([Buffer.from(`${folder}/`), entry.name]);
      if (entry.isDirectory()) {
        await unlock(path);
        const above = join(root, randomUUID());
        await rename(path, above).then(() => folders.push(above), note);
      } else {
        await unlink(path).catch(note);
      }
    }
  }
  for (const folder of folders.toReversed()) await rmdir(folder).catch(note);
  if (failures.length > 0) throw failures[0];
}

/** Where it can't be done, the next step tells. Whoever could put a link here meanwhile is this user, and could do the same himself. */
async function unlock(folder: string | Buffer): Promise<void> {
  await chmod(folder, 0o700).catch(() => undefined);
}

/**
 * Removes what dead processes of this user left in `parent`, and gives the paths of what could not be removed.
 * @throws the system's error when `parent` can't be read.
 */
export async function removeLeftovers(parent: string): Promise<string[]> {
  const remaining: string[] = [];
  for (const name of await readdir(parent)) {
    const path = join(parent, name);
    if (!name.startsWith(PREFIX) || !(await isLeftover(path))) continue;
    await removeTree(path).catch(() => remaining.push(path));
  }
  return remaining;
}

async function isLeftover(path: string): Promise<boolean> {
  try {
    const stats = await lstat(path);
    if (!stats.isDirectory() || stats.uid !== process.getuid?.()) return false;
    // A script may have closed it.
    if ((stats.mode & 0o700) !== 0o700) await chmod(path, 0o700);
    // Files come only after the socket: where there are some and no socket then, there is none any more.
    const isEmpty = (await readdir(path)).length === 0;
    const socket = join(path, SOCKET);
    let listener = await listenerAt(socket);
    if (listener === "dead") {
      // It has one before it listens to it; another process may be at just that.
      await sleep(BIRTH);
      listener = await listenerAt(socket);
    }
    return listener === "dead" || (listener === "none" && (!isEmpty || Date.now() - stats.mtimeMs > SETTLING));
  } catch {
    // Gone in the meantime.
    return false;
  }
}

/** Who listens on a Unix socket: somebody, nobody any more, or there is no socket. */
async function listenerAt(path: string): Promise<"alive" | "dead" | "none"> {
  const socket = connect(path);
  try {
    await once(socket, "connect");
    return "alive";
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ECONNREFUSED") return "dead";
    return code === "ENOENT" ? "none" : "alive";
  } finally {
    socket.destroy();
  }
}
