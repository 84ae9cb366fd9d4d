/**
 * Overrides as they were made, and what follows from them. Of each content and kind the newest record counts, in whatever order and however often
 * records come in. So one that is missing where it was read before takes nothing back, nor does an older one in its place: only a newer
 * `forget` ends what came before it.
 */
import { z } from "zod";
import type { VerdictKeys } from "./keys.ts";
import type { Override } from "./overrides.ts";

export const OVERRIDE_KINDS = ["block", "allow", "forget"] as const;
export type OverrideKind = (typeof OVERRIDE_KINDS)[number];

/** What an operator did, as it is kept: sealed, since it holds the SHA-256 itself. */
export interface OverrideRecord {
  /** `forget` ends the block and the allow before it, and voids the verdicts. */
  readonly kind: OverrideKind;
  /** Of the decrypted content, in lower-case hex. */
  readonly sha256: string;
  readonly reason: string;
  /** Milliseconds since the epoch. */
  readonly at: number;
  /** Milliseconds since the epoch. */
  readonly expiresAt?: number;
}

/** What an operator wants done. */
export interface OverrideChange {
  readonly kind: OverrideKind;
  readonly reason: string;
  /** Milliseconds since the epoch. */
  readonly expiresAt?: number;
}

/** Contents that are blocked, allowed or forgotten. With reasons of the longest kind they take some 80 MB. */
export const MAX_OVERRIDES = 100_000;
/** UTF-16 code units. */
export const MAX_REASON = 200;
/** Milliseconds that another machine's clock may be ahead of this one. */
export const MAX_CLOCK_SKEW = 5 * 60_000;
/** Milliseconds after a `forget` in which verdicts are void, too: the clock that stamped them may have been ahead. */
const FORGET_REACH = 10_000;

/** The latest moment that a Date can hold, and JSON tells exactly. */
const LATEST = 8.64e15;
const moment = z.int().min(0).max(LATEST);

const schema = z
  .strictObject({
    kind: z.enum(OVERRIDE_KINDS),
    sha256: z.string().regex(/^[0-9a-f]{64}$/),
    reason: z.string().max(MAX_REASON),
    at: moment,
    expiresAt: moment.exactOptional(),
  })
  .refine((record) => record.kind !== "forget" || record.expiresAt === undefined);

/** Undefined when it is not a whole and sound record. */
export function overrideFromJson(content: unknown): OverrideRecord | undefined {
  return schema.safeParse(content).data;
}

/** The name that a record is kept under, and sealed for. */
export function fieldName(kind: OverrideKind, digest: string): string {
  return `${kind}:${digest}`;
}

/** The digest of the content whose record is kept under this name; undefined when this record belongs under another. */
export function digestOf(field: string, record: OverrideRecord, keys: VerdictKeys): string | undefined {
  const digest = keys.digest(Buffer.from(record.sha256, "hex"));
  return field === fieldName(record.kind, digest) ? digest : undefined;
}

/**
 * `known`: it tells nothing new, be it that its time was over before. `early`: from a moment that has not come, so nothing could be newer;
 * `no_room`: there are too many. Neither counts.
 */
export type Learned = "new" | "known" | "early" | "no_room";

/** Newer than whatever is made now, as far as this machine's clock tells. */
export function isEarly(record: OverrideRecord, now: number): boolean {
  return record.at > now + MAX_CLOCK_SKEW;
}

/**
 * What a process knows. It never forgets a record but for a newer one of the same content and kind, or, when there is no room, with all others of a
 * content of which nothing stands.
 */
export class OverrideLedger {
  readonly #now: () => number;
  readonly #most: number;
  readonly #contents = new Map<string, { [Kind in OverrideKind]?: OverrideRecord }>();
  #allowed = false;
  /** Before this moment (ms since the epoch), every content has something that stands. */
  #nextEnd = Infinity;

  /** @param now milliseconds since the epoch @param most contents */
  constructor(now: () => number, most = MAX_OVERRIDES) {
    this.#now = now;
    this.#most = most;
  }

  learn(digest: string, record: OverrideRecord): Learned {
    if (isEarly(record, this.#now())) return "early";
    const content = this.#contents.get(digest);
    const known = content?.[record.kind];
    if (known !== undefined && known.at >= record.at) return "known";
    // What is known can be changed and ended, however many there are.
    if (content !== undefined) content[record.kind] = record;
    else if (this.#contents.size < this.#most) this.#contents.set(digest, { [record.kind]: record });
    else if (!this.#stands(record, undefined)) return "known";
    else if (this.#makeRoom()) this.#contents.set(digest, { [record.kind]: record });
    else return "no_room";
    this.#nextEnd = Math.min(this.#nextEnd, record.expiresAt ?? Infinity);
    if (record.kind === "allow") this.#allowed = true;
    return "new";
  }

  /** Once any content was allowed. */
  get allowsAny(): boolean {
    return this.#allowed;
  }

  of(digest: string): Override | undefined {
    const content = this.#contents.get(digest);
    if (content === undefined) return undefined;
    const { block, allow } = content;
    if (block !== undefined && this.#stands(block, content.forget)) return overrideOf("block", block);
    return allow !== undefined && this.#stands(allow, content.forget) ? overrideOf("allow", allow) : undefined;
  }

  forgottenAt(digest: string): number {
    return (this.#contents.get(digest)?.forget?.at ?? -Infinity) + FORGET_REACH;
  }

  /** Of one content and kind; undefined when there is none. */
  known(digest: string, kind: OverrideKind): OverrideRecord | undefined {
    return this.#contents.get(digest)?.[kind];
  }

  /** All that must be kept: what neither a `forget` nor the time has ended, and every `forget`. */
  *standing(): Generator<{ readonly digest: string; readonly record: OverrideRecord }> {
    for (const [digest, content] of this.#contents) {
      for (const kind of OVERRIDE_KINDS) {
        const record = content[kind];
        if (record !== undefined && this.#stands(record, content.forget)) yield { digest, record };
      }
    }
  }

  /** The record that a change makes: newer than all that is known of this content, though another machine's clock be ahead. */
  recordOf(digest: string, sha256: Buffer, change: OverrideChange): OverrideRecord {
    const content = this.#contents.get(digest) ?? {};
    const newest = Math.max(...OVERRIDE_KINDS.map((kind) => content[kind]?.at ?? -1));
    return { ...change, sha256: sha256.toString("hex"), at: Math.max(Math.floor(this.#now()), newest + 1) };
  }

  /** Drops contents of which nothing stands; looks for them only when there may be any. */
  #makeRoom(): boolean {
    if (this.#now() < this.#nextEnd) return false;
    this.#nextEnd = Infinity;
    for (const [digest, content] of this.#contents) {
      const records = OVERRIDE_KINDS.flatMap((kind) => content[kind] ?? []);
      if (records.some((record) => this.#stands(record, content.forget))) {
        for (const { expiresAt = Infinity } of records) if (expiresAt > this.#now()) this.#nextEnd = Math.min(this.#nextEnd, expiresAt);
      } else this.#contents.delete(digest);
    }
    return this.#contents.size < this.#most;
  }

  #stands(record: OverrideRecord, forget: OverrideRecord | undefined): boolean {
    if (record.kind === "forget") return true;
    if (record.expiresAt !== undefined && record.expiresAt <= this.#now()) return false;
    // Of two of the same moment, the one that blocks.
    return forget === undefined || record.at > forget.at || (record.at === forget.at && record.kind === "block");
  }
}

function overrideOf(kind: Override["kind"], { reason, at, expiresAt }: OverrideRecord): Override {
  return { kind, reason, at, expiresAt };
}
