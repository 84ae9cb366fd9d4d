/** Where overrides lie in Redis, and how instances learn that they have changed. */
import { z } from "zod";
import type { VerdictKeys } from "./keys.ts";
import { digestOf, OVERRIDE_KINDS, overrideFromJson } from "./overrides-ledger.ts";
import type { ReadOverride } from "./overrides-learning.ts";
import type { RedisRecords } from "./redis-records.ts";
import type { SealedHash } from "./sealed-hash.ts";

export type SharedRecords = Pick<RedisRecords, "get" | "set" | "time" | "publish" | "subscribe" | "hash" | "health">;

/** The hash of all overrides, and the channel on which it is said that it changed. A message is the name of the field that did. */
export const OVERRIDES = "overrides";
/** Written anew after each change: where no message arrives, it tells what is to be read again. */
const REVISION = "overrides-revision";
/** Milliseconds: ten years. */
const REVISION_LIFETIME = 10 * 365 * 24 * 60 * 60 * 1000;
/** Base64url of a SHA-256. */
const FIELD = new RegExp(`^(?:${OVERRIDE_KINDS.join("|")}):[\\w-]{43}$`);

const revisionSchema = z.strictObject({
  /** Milliseconds since the epoch, roughly: later than that of the change before. */
  at: z.int().min(0),
  /** That of the change before; without it, as where it was lost, or with another one than is known, all is to be read. */
  previous: z.int().min(0).exactOptional(),
  /** What changed; without it, much did. */
  field: z.string().regex(FIELD).exactOptional(),
});

export type Revision = z.infer<typeof revisionSchema>;

export function overridesHash(records: Pick<SharedRecords, "hash">, keys: VerdictKeys): SealedHash<ReadOverride> {
  return records.hash(OVERRIDES, (content, field) => {
    const record = overrideFromJson(content);
    return record && { digest: digestOf(field, record, keys), record };
  });
}

/** Undefined when there is none, or Redis can't be asked. */
export async function readRevision(records: Pick<SharedRecords, "get">): Promise<Revision | undefined> {
  return (await records.get(REVISION, (content) => revisionSchema.safeParse(content).data))?.record;
}

/** What may be the name of a field that has changed: anybody can say so. */
export function isHint(message: string): boolean {
  return FIELD.test(message);
}

/** Says that a field has changed; without one, that many have. */
export async function announce(records: SharedRecords, now: number, field?: string): Promise<void> {
  const previous = (await readRevision(records))?.at;
  const revision: Revision = {
    at: Math.max(Math.floor(now), (previous ?? -1) + 1),
    ...(previous === undefined ? {} : { previous }),
    ...(field === undefined ? {} : { field }),
  };
  await records.set(REVISION, revision, REVISION_LIFETIME);
  await records.publish(OVERRIDES, field ?? "");
}
