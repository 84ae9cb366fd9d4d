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

/** Changes that a revision names at most. */
const MAX_CHANGES = 32;

const moment = z.int().min(0);
const revisionSchema = z.strictObject({
  /** Of the last change; milliseconds since the epoch, roughly: later than that of the change before. */
  at: moment,
  /** Whoever knows all up to a moment before this one has to read all. */
  since: moment,
  /** All that changed after that moment, in turn. */
  changes: z.array(z.strictObject({ at: moment, field: z.string().regex(FIELD) })).max(MAX_CHANGES),
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

/** What has changed after a moment; undefined when a revision does not tell all of it. */
export function changedAfter(moment: number | undefined, { since, changes }: Revision): readonly string[] | undefined {
  if (moment === undefined || moment < since) return undefined;
  return changes.filter(({ at }) => at > moment).map(({ field }) => field);
}

/** Says that a field has changed; without one, that many have. */
export async function announce(records: SharedRecords, now: number, field?: string): Promise<void> {
  const last = await readRevision(records);
  const at = Math.max(Math.floor(now), (last?.at ?? -1) + 1);
  await records.set(REVISION, revisionAfter(last, at, field), REVISION_LIFETIME);
  await records.publish(OVERRIDES, field ?? "");
}

function revisionAfter(last: Revision | undefined, at: number, field: string | undefined): Revision {
  // Where the last one was lost, others before it may have been.
  if (last === undefined || field === undefined) return { at, since: at, changes: [] };
  const changes = [...last.changes, { at, field }];
  const dropped = changes.length > MAX_CHANGES ? changes.shift() : undefined;
  return { at, since: dropped?.at ?? last.since, changes };
}
