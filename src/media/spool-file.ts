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

export interface SpoolFileReader {
  /**
   * Exactly `length` bytes at `position`, which must have been written before; in a buffer of their own. Calls may overlap.
   * @throws GatewayError `no_room` when the system fails it (EIO).
   */
  read(position: number, length: number): Promise<Buffer>;
}

/** Encrypts and decrypts, which are the same in counter mode. To create a cipher costs as much as to encrypt 10 to 20 KiB, so it is kept for what follows. */
class Keystream {
  readonly #key: Buffer;
  #cipher: Cipheriv | undefined;
  /** Where the cipher stands, in bytes of the file. */
  #position = 0;

  constructor(key: Buffer) {
    this.#key = key;
  }

  /** What belongs at `position` and behind it, encrypted or decrypted; in memory that nothing else is in. */
  apply(bytes: Buffer, position: number): Buffer<ArrayBuffer> {
    const cipher = this.#cipher !== undefined && this.#position === position ? this.#cipher : this.#cipherAt(position);
    // Should it fail, nobody knows where it stands.
    this.#cipher = undefined;
    const done = cipher.update(bytes);
    this.#cipher = cipher;
    this.#position = position + bytes.length;
    return done;
  }

  #cipherAt(position: number): Cipheriv {
    const counter = Buffer.alloc(CIPHER_BLOCK);
    counter.writeBigUInt64BE(BigInt(Math.floor(position / CIPHER_BLOCK)), CIPHER_BLOCK - 8);
    const cipher = createCipheriv(CIPHER, this.#key, counter);
    const skipped = position % CIPHER_BLOCK;
    if (skipped > 0) cipher.update(Buffer.alloc(skipped));
    return cipher;
  }
}

/** `open` and `write` throw GatewayError `no_room` when the system fails them (ENOSPC, EMFILE, EIO). */
export class SpoolFile {
  readonly #handle: FileHandle;
  /** One for each file, so the counter may begin at 0. */
  readonly #key = randomBytes(32);
  readonly #keystream = new Keystream(this.#key);

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
    const encrypted: Buffer<ArrayBuffer>[] = [];
    let end = position;
    for (const block of blocks) {
      encrypted.push(this.#keystream.apply(block, end));
      end += block.length;
    }
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

  /** One for each pass: what it reads in order is decrypted with one cipher. */
  reader(): SpoolFileReader {
    const keystream = new Keystream(this.#key);
    return {
      read: async (position, length) => {
        const encrypted = Buffer.allocUnsafeSlow(length);
        for (let offset = 0; offset < length;) offset += await this.#read(encrypted, offset, position + offset);
        const plain = keystream.apply(encrypted, position);
        free(encrypted);
        return plain;
      },
    };
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
