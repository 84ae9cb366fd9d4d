/**
 * A directory that only this process' user may enter, for decrypted files that a script must see as files. It is known to be in use by a socket
 * that this process listens on: process IDs would mislead where containers share a directory. One whose socket nobody listens on any more was left behind
 * by a process that died, and is removed.
 */
import { once } from "node:events";
import { constants } from "node:fs";
import { lstat, mkdtemp, open, readdir, rm, statfs, type FileHandle } from "node:fs/promises";
import { connect, createServer, type Server } from "node:net";
import { join } from "node:path";

const PREFIX = "matrix-icap-gateway-script-";
const SOCKET = "alive";
/** Milliseconds that a new directory may take to get its socket. */
const SETTLING = 60_000;
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

  /** Removes what dead processes left in `parent`, and makes a directory there. @throws the system's errors. */
  static async open(parent: string): Promise<PrivateDirectory> {
    await removeLeftovers(parent);
    const path = await mkdtemp(join(parent, PREFIX));
    try {
      const server = createServer((socket) => socket.destroy()).listen(join(path, SOCKET));
      await once(server, "listening");
      server.unref();
      return new PrivateDirectory(path, MEMORY_FILE_SYSTEMS.has((await statfs(path)).type), server);
    } catch (error) {
      await rm(path, { recursive: true, force: true });
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
      await rm(folder, { recursive: true, force: true });
      throw error;
    }
  }

  async exists(): Promise<boolean> {
    return lstat(this.path).then(
      (stats) => stats.isDirectory(),
      () => false,
    );
  }

  /** Removes it with all that is in it. Idempotent. */
  async remove(): Promise<void> {
    await new Promise((resolve) => this.#server.close(resolve));
    await rm(this.path, { recursive: true, force: true });
  }
}

async function removeLeftovers(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    const path = join(parent, name);
    if (name.startsWith(PREFIX) && (await isLeftover(path))) await rm(path, { recursive: true, force: true });
  }
}

async function isLeftover(path: string): Promise<boolean> {
  try {
    const stats = await lstat(path);
    if (!stats.isDirectory() || stats.uid !== process.getuid?.()) return false;
    const listener = await listenerAt(join(path, SOCKET));
    return listener === "dead" || (listener === "none" && Date.now() - stats.mtimeMs > SETTLING);
  } catch {
    // Gone in the meantime, or not ours to look into.
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
