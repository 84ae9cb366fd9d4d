/** A file that no directory names: what it holds is gone with its last descriptor, however the process ends. */
import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { open, unlink, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { GatewayError } from "../errors.ts";

const FLAGS = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/** Every method throws GatewayError `no_room` when the system fails it (ENOSPC, EMFILE, EIO). */
export class SpoolFile {
  readonly #handle: FileHandle;

  private constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  static async open(directory: string): Promise<SpoolFile> {
    const path = join(directory, `matrix-icap-gateway-${randomBytes(16).toString("hex")}.spool`);
    try {
      const handle = await open(path, FLAGS, 0o600);
      try {
        await unlink(path);
      } catch (error) {
        await handle.close();
        throw error;
      }
      return new SpoolFile(handle);
    } catch (error) {
      throw noRoom("opened", error);
    }
  }

  /** Writes all of the blocks at `position`, one after the other. */
  async write(blocks: readonly Buffer[], position: number): Promise<void> {
    let at = position;
    for (const block of blocks) {
      let offset = 0;
      while (offset < block.length) {
        const written = await this.#write(block, offset, at);
        offset += written;
        at += written;
      }
    }
  }

  async #write(block: Buffer, offset: number, position: number): Promise<number> {
    try {
      const { bytesWritten } = await this.#handle.write(block, offset, block.length - offset, position);
      if (bytesWritten > 0) return bytesWritten;
    } catch (error) {
      throw noRoom("written", error);
    }
    throw noRoom("written", undefined);
  }

  /** Exactly `length` bytes at `position`, which must have been written before; in a buffer of their own. */
  async read(position: number, length: number): Promise<Buffer> {
    const buffer = Buffer.allocUnsafeSlow(length);
    let offset = 0;
    while (offset < length) {
      const read = await this.#read(buffer, offset, position + offset);
      offset += read;
    }
    return buffer;
  }

  async #read(buffer: Buffer, offset: number, position: number): Promise<number> {
    try {
      const { bytesRead } = await this.#handle.read(buffer, offset, buffer.length - offset, position);
      if (bytesRead > 0) return bytesRead;
    } catch (error) {
      throw noRoom("read", error);
    }
    throw noRoom("read", undefined);
  }

  /** Closes the descriptor once the operations in flight have ended. Idempotent. */
  async close(): Promise<void> {
    await this.#handle.close();
  }
}

function noRoom(what: string, cause: unknown): GatewayError {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "fewer bytes than expected";
  return new GatewayError("no_room", { detail: `a spool file could not be ${what}: ${code}`, cause });
}
