/** The key pair that clients encrypt request bodies to, and the file it lives in. */
import { hkdfSync, randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { link, open, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import type Olm from "@matrix-org/olm";
import { decodeBase64 } from "./base64.ts";
import { PkDecryption, type PkMessage } from "./pk-decryption.ts";

/** The Python scanner's secret file (32 bytes in base64), or the legacy scanner's libolm pickle. */
export type RequestKeySource = { readonly secretPath: string } | { readonly picklePath: string; readonly pickleKey: string };

/** Private keys of 32 bytes, the current one first: all that another process needs to have the same keys. */
export type RequestSecrets = readonly Uint8Array[];

export interface RequestKeys {
  /** The current key, in unpadded base64, as `public_key` answers it. */
  readonly publicKey: string;
  /** What an operator should know about the files; no secrets. */
  readonly warnings: readonly string[];
  /**
   * Decrypts with the current key, then with the previous ones, until `read` makes something of the plaintext, which still has its padding. When
   * `read` returns undefined for all of them, so does this: no answer, and no key left out, tells why.
   */
  decrypt<T>(message: PkMessage, read: (padded: Buffer) => T | undefined): T | undefined;
  /** 32 bytes for another purpose, always the same for one label and current key: HKDF-SHA-256 (RFC 5869) of the private key. */
  deriveSecret(label: string): Buffer;
  /** Copies. Whoever holds them reads what clients encrypt. */
  secrets(): RequestSecrets;
  /** Forgets the keys, and wipes what was kept of them as bytes; nothing else may be called afterwards. Idempotent. */
  free(): void;
}

/** A key file that can't be used. The message names the file and never quotes it. */
export class KeyFileError extends Error {
  override readonly name = "KeyFileError";
  readonly path: string;
  readonly reason: string;

  constructor(path: string, reason: string, cause?: unknown) {
    super(`${path}: ${reason}`, { cause });
    this.path = path;
    this.reason = reason;
  }
}

const SECRET_SIZE = 32;
const MAX_FILE_SIZE = 4096;
const NOTHING = Buffer.alloc(0);

/**
 * Loads the keys. The file of `source` is made, with mode 0600, if it is not there; previous secrets have to be.
 * @throws KeyFileError
 */
export async function loadRequestKeys(source: RequestKeySource, previousSecretPaths: readonly string[] = []): Promise<RequestKeys> {
  const loaded: LoadedKey[] = [];
  try {
    loaded.push("secretPath" in source ? await loadSecret(source.secretPath, true) : await loadPickle(source.picklePath, source.pickleKey));
    for (const path of previousSecretPaths) loaded.push(await loadSecret(path, false));
    return requestKeys(
      loaded.map(({ secret }) => secret),
      loaded.flatMap(({ warnings }) => warnings),
    );
  } finally {
    for (const { secret } of loaded) secret.fill(0);
  }
}

/** The keys that another process has loaded. @throws RangeError when there are none */
export function adoptRequestKeys(secrets: RequestSecrets): RequestKeys {
  return requestKeys(secrets, []);
}

interface LoadedKey {
  /** The private key; wiped once it is in use. */
  readonly secret: Uint8Array;
  readonly warnings: readonly string[];
}

/** Copies the private keys, the current one first. @throws RangeError when there are none */
function requestKeys(given: RequestSecrets, warnings: readonly string[]): RequestKeys {
  const secrets = given.map((secret) => Buffer.from(secret));
  const decryptions = secrets.map((secret) => new PkDecryption(secret));
  const [[current], [decryption]] = [secrets, decryptions];
  if (current === undefined || decryption === undefined) throw new RangeError("there is no key");
  return {
    publicKey: decryption.publicKey,
    warnings,
    decrypt(message, read) {
      for (const one of decryptions) {
        const padded = one.decrypt(message);
        // What could not be decrypted is read all the same, as nothing, so that both kinds of refusal take the same steps.
        const content = read(padded ?? NOTHING);
        if (padded !== undefined && content !== undefined) return content;
      }
      return undefined;
    },
    deriveSecret(label) {
      return Buffer.from(hkdfSync("sha256", current, "", `matrix-icap-gateway ${label}`, SECRET_SIZE));
    },
    secrets() {
      return secrets.map((secret) => Uint8Array.from(secret));
    },
    free() {
      decryptions.length = 0;
      for (const secret of secrets) secret.fill(0);
    },
  };
}

async function loadSecret(path: string, make: boolean): Promise<LoadedKey> {
  const { content, warnings } = make
    ? await readOrMake(path, () => `${randomBytes(SECRET_SIZE).toString("base64")}\n`)
    : await readKeyFile(path);
  const secret = decodeBase64(content.trim(), SECRET_SIZE);
  if (secret === undefined) throw new KeyFileError(path, `not the base64 of ${SECRET_SIZE} bytes`);
  return { secret, warnings };
}

async function loadPickle(path: string, pickleKey: string): Promise<LoadedKey> {
  const olm = await loadOlm();
  const { content, warnings } = await readOrMake(path, () => {
    const fresh = new olm.PkDecryption();
    try {
      fresh.generate_key();
      return fresh.pickle(pickleKey);
    } finally {
      fresh.free();
    }
  });
  const decryption = new olm.PkDecryption();
  try {
    decryption.unpickle(pickleKey, content.trim());
    return { secret: decryption.get_private_key(), warnings };
  } catch (error) {
    throw new KeyFileError(path, "not a libolm pickle, or not one of this pickle_key", error);
  } finally {
    decryption.free();
  }
}

interface KeyFile {
  readonly content: string;
  readonly warnings: readonly string[];
}

/** Whatever is in the file at the end is the key: of two instances that start at once, one makes it and both read it. */
async function readOrMake(path: string, make: () => string): Promise<KeyFile> {
  try {
    return await readKeyFile(path);
  } catch (error) {
    if (!(error instanceof KeyFileError) || codeOf(error.cause) !== "ENOENT") throw error;
  }
  await makeKeyFile(path, make());
  return readKeyFile(path);
}

async function readKeyFile(path: string): Promise<KeyFile> {
  try {
    // Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
    await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const { size, mode } = await file.stat().then((stat) => {
      if (!stat.isFile()) throw new KeyFileError(path, "not a regular file");
      return stat;
    });
    if (size > MAX_FILE_SIZE) throw new KeyFileError(path, `larger than ${MAX_FILE_SIZE} bytes`);
    const buffer = Buffer.alloc(size);
    const { bytesRead } = await file.read(buffer, 0, size, 0);
    return { content: buffer.toString("latin1", 0, bytesRead), warnings: warningsOf(path, mode) };
  } catch (error) {
    throw error instanceof KeyFileError ? error : new KeyFileError(path, `can't be read (${codeOf(error)})`, error);
  }
}

/** A group may read it: that is how secrets are mounted in containers that don't run as root. */
function warningsOf(path: string, mode: number): string[] {
  if ((mode & 0o027) === 0) return [];
  return [`${path}: others may read or write it (mode ${(mode & 0o777).toString(8).padStart(4, "0")}); set it to 0600`];
}

/** Never overwrites a file, and never leaves half of one: the content is on disk before the name is. */
async function makeKeyFile(path: string, content: string): Promise<void> {
  const directory = dirname(path);
  const temporary = join(directory, `.${basename(path)}.${randomBytes(8).toString("hex")}`);
  try {
    {
      await using file = await open(temporary, "wx", 0o600);
      await file.writeFile(content);
      await file.sync();
    }
    await link(temporary, path);
    await using parent = await open(directory, constants.O_RDONLY);
    await parent.sync();
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw new KeyFileError(path, `is not there and can't be made (${codeOf(error)})`, error);
  } finally {
    await rm(temporary, { force: true });
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "unknown error";
}

let loading: Promise<typeof Olm> | undefined;

/**
 * libolm's module is CommonJS with an asynchronous start. Its start-up code installs process-wide handlers that throw whatever nobody
 * caught; what to do with such errors is for the entry point to decide, so they are taken off again.
 */
async function loadOlm(): Promise<typeof Olm> {
  loading ??= (() => {
    const olm = createRequire(import.meta.url)("@matrix-org/olm") as typeof Olm;
    const events = ["uncaughtException", "unhandledRejection"];
    const before = events.map((event) => new Set(process.rawListeners(event)));
    const started = olm.init();
    for (const [i, event] of events.entries()) {
      for (const listener of process.rawListeners(event)) {
        if (!before[i]?.has(listener)) process.removeListener(event, listener as (...args: unknown[]) => void);
      }
    }
    return started.then(() => olm);
  })();
  return loading;
}
