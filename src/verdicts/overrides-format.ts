/**
 * The file that holds overrides where there is no Redis. Its first line names the format and a fingerprint of the secret; each other line is one
 * override: the name it is kept under, a blank, and the sealed record in base64url. Lines stand in no order.
 */
import { KeyedDigest } from "./keyed-digest.ts";
import type { VerdictKeys } from "./keys.ts";
import { digestOf, MAX_OVERRIDES, type OverrideRecord, overrideFromJson } from "./overrides-ledger.ts";
import { inTurns } from "./overrides-turns.ts";
import { RecordCodec } from "./record-codec.ts";

const TITLE = "matrix-icap-gateway overrides";
const VERSION = "1";
/** Longer than any line that is written: a name, and the longest reason in its longest JSON. */
const MAX_LINE = 4096;
/** Bytes of the longest file that is read or written: room for as many overrides as are kept, with reasons of some length. */
export const MAX_FILE_BYTES = MAX_OVERRIDES * 640;
/** For what never ends, since a sealed value always does. */
const NEVER = Number.MAX_SAFE_INTEGER;

/** Can't be read as a whole, in words that follow the file's name. */
export class ForeignFileError extends Error {
  override readonly name = "ForeignFileError";
}

export interface SealedLine {
  /** Begins at 1. */
  readonly number: number;
  readonly digest: string;
  readonly record: OverrideRecord;
  readonly line: string;
}

export interface OverridesFile {
  readonly overrides: readonly SealedLine[];
  /** What is on none of ours, or was changed. */
  readonly damaged: readonly { readonly number: number; readonly line: string }[];
}

export class OverridesFormat {
  readonly #codec: RecordCodec;
  readonly #keys: VerdictKeys;
  readonly #title: string;

  /** @param secret seals the lines; who else reads or writes the file has the same, and the same keys */
  constructor(secret: Buffer, keys: VerdictKeys) {
    this.#codec = new RecordCodec(secret);
    this.#keys = keys;
    this.#title = `${TITLE} ${VERSION} ${new KeyedDigest(secret).name("fingerprint of an overrides file", [])}`;
  }

  /** Others get their turn meanwhile. @throws ForeignFileError for another format, or another secret. */
  async parse(bytes: Buffer): Promise<OverridesFile> {
    const overrides: SealedLine[] = [];
    const damaged: { number: number; line: string }[] = [];
    let number = 0;
    for await (const line of inTurns(linesOf(bytes))) {
      number += 1;
      if (number === 1) this.#checkTitle(line);
      if (line === "" || line === this.#title) continue;
      const sealed = this.#open(line);
      if (sealed !== undefined) overrides.push({ ...sealed, number });
      else damaged.push({ number, line });
    }
    return { overrides, damaged };
  }

  /** A file of these lines. */
  print(lines: readonly string[]): string {
    return `${[this.#title, ...lines].join("\n")}\n`;
  }

  seal(field: string, record: OverrideRecord): string {
    return `${field} ${this.#codec.seal(sealedFor(field), record, record.expiresAt ?? NEVER).toString("base64url")}`;
  }

  #open(line: string): Omit<SealedLine, "number"> | undefined {
    if (line.length > MAX_LINE) return undefined;
    const [field = "", value = ""] = line.split(" ", 2);
    const opened = this.#codec.open(sealedFor(field), Buffer.from(value, "base64url"));
    const record = opened && overrideFromJson(opened.content);
    const digest = record && digestOf(field, record, this.#keys);
    return digest === undefined || record === undefined ? undefined : { digest, record, line };
  }

  /** A first line that is none of ours is a damaged line among others. */
  #checkTitle(first: string): void {
    if (first === this.#title || !first.startsWith(`${TITLE} `)) return;
    const [version = "", fingerprint = ""] = first.slice(TITLE.length + 1).split(" ");
    if (version !== VERSION && /^\d{1,9}$/.test(version)) throw new ForeignFileError("was written by another version of this program");
    if (/^[\w-]{43}$/.test(fingerprint)) throw new ForeignFileError("was written under another secret");
  }
}

function sealedFor(field: string): string {
  return `override ${field}`;
}

function* linesOf(bytes: Buffer): Generator<string> {
  for (let at = 0; at < bytes.length;) {
    const newline = bytes.indexOf(0x0a, at);
    const end = newline === -1 ? bytes.length : newline;
    yield bytes.toString("latin1", at, end);
    at = end + 1;
  }
}
