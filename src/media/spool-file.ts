/**
 * A file that no directory names: what it holds is gone with its last descriptor, however the process ends. And what is left on the disk then is
 * encrypted, with a key that was never anywhere but in this process: clients also bring what has yet to be encrypted.
 */
import { type Cipheriv, createCipheriv, randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { open, unlink, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { GatewayError } from "../errors.ts";
import { free } from "./free.ts";

const FLAGS = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/** AES-256 in counter mode: any position is as near as the next. Changes go unnoticed, but nobody else has the file; and no byte is written twice. */
const CIPHER = "aes-256-ctr";
const CIPHER_BLOCK = 16;

/** `open`, `write` and `read` throw GatewayError `no_room` when the system fails them (ENOSPC, EMFILE, EIO). */
export class SpoolFile {
  readonly #handle: FileHandle;
  /** One for each file, so the counter may begin at 0. */
  readonly #key = randomBytes(32);

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

  /** Writes all of the blocks at `position`, one after the other; nowhere a second time. The blocks stay as they are. */
  async write(blocks: readonly Buffer[], position: number): Promise<void> {
    const cipher = this.#cipherAt(position);
    const encrypted = blocks.map((block) => cipher.update(block));
    let left = behind(encrypted, 0);
    for (let at = position; left.length > 0;) {
      const written = await this.#write(left, at);
      at += written;
      left = behind(left, written);
    }
    for (const block of encrypted) free(block);
  }

  async #write(blocks: readonly Buffer[], position: number): Promise<number> {
    try {
      const { bytesWritten } = await this.#handle.writev(blocks, position);
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
    const plain = this.#cipherAt(position).update(buffer);
    free(buffer);
    return plain;
  }

  /** Encrypts or decrypts what belongs at `position` and behind it: in counter mode both are the same. */
  #cipherAt(position: number): Cipheriv {
    const counter = Buffer.alloc(CIPHER_BLOCK);
    counter.writeBigUInt64BE(BigInt(Math.floor(position / CIPHER_BLOCK)), CIPHER_BLOCK - 8);
    const cipher = createCipheriv(CIPHER, this.#key, counter);
    const skipped = position % CIPHER_BLOCK;
    if (skipped > 0) cipher.update(Buffer.alloc(skipped));
    return cipher;
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

/** What of the blocks is behind so many bytes, without those of which nothing is. */
function behind(blocks: readonly Buffer<ArrayBuffer>[], bytes: number): Buffer<ArrayBuffer>[] {
  let skipped = bytes;
  return blocks.flatMap((block) => {
    const rest = block.subarray(skipped);
    skipped = Math.max(0, skipped - block.length);
    return rest.length === 0 ? [] : [rest];
  });
}

function noRoom(what: string, cause: unknown): GatewayError {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "fewer bytes than expected";
  return new GatewayError("no_room", { detail: `a spool file could not be ${what}: ${code}`, cause });
}
