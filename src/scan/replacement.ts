/** What scanners send in the media's stead: written to spools, looked at, and handed on or thrown away. */
import { GatewayError } from "../errors.ts";
import { type DetectedType, isAllowed, type TypeDetector } from "../media/mime.ts";
import type { Spool } from "../media/spool.ts";
import { waitFor } from "./deadline.ts";
import type { Decision, Place, Policy, Replaced } from "./policy.ts";
import { prefixOf } from "./prefix.ts";
import type { Replacement, ScanContext } from "./scanner.ts";

/** A replacement that may be handed on, by its own size and type. */
export interface SanitisedMedia {
  readonly mime: string;
  /** Whether the original's type is the same, so that its file name fits. */
  readonly sameType: boolean;
  readonly size: number;
  read(): AsyncIterable<Buffer>;
}

/**
 * The replacements of one piece of media. Whatever becomes of scans and scanners, disposing this gives back all that they wrote.
 * None are to be had any more after that.
 */
export class Replacements implements AsyncDisposable {
  readonly #room: () => Promise<Spool>;
  readonly #open = new Set<SpooledReplacement>();
  #pending: Promise<unknown> = Promise.resolve();
  #closed = false;
  #kept: SanitisedMedia | undefined;

  /** @param room makes a spool of the size that media may have. */
  constructor(room: () => Promise<Spool>) {
    this.#room = room;
  }

  /** What may be handed on. */
  get kept(): SanitisedMedia | undefined {
    return this.#kept;
  }

  /** Where one scanner writes, as often as it has to begin again. */
  place(): Place {
    let overflowed = false;
    return {
      get overflowed() {
        return overflowed;
      },
      create: () => {
        const made = this.#create(() => (overflowed = true));
        // Awaited when everything is given back: a spool may still be on its way then.
        this.#pending = Promise.allSettled([this.#pending, made]);
        return made;
      },
    };
  }

  /**
   * Decides on what one scanner sent, and keeps it if it may be handed on: its type passes the lists, it is such a file as the original and no
   * page, and every scanner, its maker too, says that it is clean.
   * All others are given back.
   * @throws whatever keeps that from being known.
   */
  async judge(replaced: Replaced, { policy, types, original, context }: Judges, signal: AbortSignal): Promise<Decision> {
    const { why } = replaced;
    const scanner = replaced.by.name;
    const replacement = [...this.#open].find((one) => one === replaced.replacement);
    if (replacement === undefined || !replacement.ended || replacement.size === 0) return { outcome: "modified", why, scanner };
    await this.#giveBack(replacement);
    const type = await waitFor(types.detect(await prefixOf(replacement.open())), signal);
    if (policy.refuseType(type) !== undefined) {
      return { outcome: "modified", why: `${why}; ${type.mime}, which is in its stead, is not allowed`, scanner };
    }
    const { mime } = type;
    const originalType = await waitFor(original(), signal);
    if (isPage(mime)) return { outcome: "modified", why: `${why}; it may be a page (${mime})`, scanner };
    if (!isAkin(type, originalType)) return { outcome: "modified", why: `${why}; ${mime} in place of ${originalType.mime}`, scanner };
    const subject = { size: replacement.size, type, open: () => replacement.open(), ...(context === undefined ? {} : { context }) };
    const objection = await policy.refuseReplacement(subject, signal);
    if (objection !== undefined) return { outcome: "modified", why: `${why}; ${objection}`, scanner };
    this.#kept = { mime, sameType: mime === originalType.mime, size: replacement.size, read: () => replacement.open() };
    return { outcome: "sanitised", why, scanner };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.#giveBack();
    await this.#pending;
  }

  async #create(onOverflow: () => void): Promise<SpooledReplacement> {
    if (this.#closed) throw tooLate();
    const spool = await this.#room();
    if (this.#closed) {
      await spool.close();
      throw tooLate();
    }
    const replacement = new SpooledReplacement(spool, onOverflow, () => this.#open.delete(replacement));
    this.#open.add(replacement);
    return replacement;
  }

  async #giveBack(but?: SpooledReplacement): Promise<void> {
    await Promise.all([...this.#open].filter((one) => one !== but).map((one) => one[Symbol.asyncDispose]()));
  }
}

/** What a replacement is judged by. */
export interface Judges {
  readonly policy: Policy;
  readonly types: TypeDetector;
  readonly original: () => Promise<DetectedType>;
  readonly context: ScanContext | undefined;
}

/**
 * Whether a block page may have this type: text of any kind, and what nobody knows, as text in UTF-16 without a mark or with control characters.
 * Some servers send such a page with nothing else to tell it from a file; in the stead of text, nothing tells it from text that was sanitised.
 */
function isPage(mime: string): boolean {
  return (mime.startsWith("text/") && mime !== RTF) || /[/+](?:xml|json|octet-stream|x-ndjson)$/.test(mime);
}

/** Whether one may be what a sanitiser makes of the other: the same, another picture or recording, a document that was converted. */
function isAkin(one: DetectedType, other: DetectedType): boolean {
  if (one.mime === other.mime || (isDocument(one) && isDocument(other))) return true;
  // Packed anew, a document or a JAR may be known for no more than a zip archive.
  if (one.mime === ZIP || other.mime === ZIP) return isZip(one) && isZip(other);
  const [family] = one.mime.split("/", 1);
  return (family === "image" || family === "audio" || family === "video") && other.mime.startsWith(`${family}/`);
}

function isDocument({ mime }: DetectedType): boolean {
  return (
    mime === RTF ||
    /^application\/(?:pdf|msword|x-ole-storage|x-hwp|vnd\.ms-(?:excel|office|powerpoint|word)|vnd\.visio)/.test(mime) ||
    isOffice(mime)
  );
}

function isZip(type: DetectedType): boolean {
  return isAllowed(type, new Set([ZIP])) || isOffice(type.mime);
}

/** Office Open XML and OpenDocument, both of them zip archives. */
function isOffice(mime: string): boolean {
  return /^application\/vnd\.(?:openxmlformats-officedocument|oasis\.opendocument)\./.test(mime);
}

const ZIP = "application/zip";
const RTF = "text/rtf";

class SpooledReplacement implements Replacement {
  readonly #spool: Spool;
  readonly #onOverflow: () => void;
  readonly #onClose: () => void;
  #ended = false;

  constructor(spool: Spool, onOverflow: () => void, onClose: () => void) {
    this.#spool = spool;
    this.#onOverflow = onOverflow;
    this.#onClose = onClose;
  }

  /** Whether the scanner said that this is all. */
  get ended(): boolean {
    return this.#ended;
  }

  get size(): number {
    return this.#spool.size;
  }

  async write(bytes: Uint8Array): Promise<void> {
    try {
      await this.#spool.write(bytes);
    } catch (error) {
      if (error instanceof GatewayError && error.code === "too_large") this.#onOverflow();
      throw error;
    }
  }

  end(): void {
    this.#spool.end();
    this.#ended = true;
  }

  open(): AsyncIterable<Buffer> {
    return this.#spool.read();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#onClose();
    await this.#spool.close();
  }
}

function tooLate(): GatewayError {
  return new GatewayError("internal", { detail: "the media has been decided on" });
}
