/** What a worker and its primary say to each other. What a worker asks for is checked; what the primary says is what this code has made. */
import { z } from "zod";
import type { Config } from "../config/load.ts";

/** Characters of the longest record, name and record in a hash, hint, and reason. */
export const LIMITS = { record: 2 * 1024 * 1024, field: 128, entry: 4096, hint: 1024, reason: 1000 } as const;

const name = z.string().min(1).max(512);
const token = z.string().min(1).max(64);
const milliseconds = z.number().min(0).max(Number.MAX_SAFE_INTEGER);

/** To the primary, which keeps the records of all workers. Records are JSON. */
export const recordQuestion = z.discriminatedUnion("do", [
  z.strictObject({ do: z.literal("ping") }),
  z.strictObject({ do: z.literal("get"), name }),
  z.strictObject({ do: z.literal("set"), name, json: z.string().max(LIMITS.record), ttl: milliseconds }),
  /** As `set`, if nothing is there, or what is there is still what bears this mark. */
  z.strictObject({ do: z.literal("replace"), name, json: z.string().max(LIMITS.record), ttl: milliseconds, mark: z.int().min(0) }),
  z.strictObject({ do: z.literal("delete"), name }),
  z.strictObject({ do: z.literal("take"), name, token, ttl: milliseconds }),
  z.strictObject({ do: z.literal("extend"), name, token, ttl: milliseconds }),
  z.strictObject({ do: z.literal("release"), name, token }),
  z.strictObject({ do: z.literal("entries"), name }),
  z.strictObject({
    do: z.literal("put"),
    name,
    field: z.string().min(1).max(LIMITS.field),
    json: z.string().max(LIMITS.entry),
    expiresAt: milliseconds,
  }),
]);
export type RecordQuestion = z.infer<typeof recordQuestion>;

/** A record as it is kept, and until when (ms since the epoch). */
export interface KeptJson {
  readonly json: string;
  readonly expiresAt: number;
}

/** No other record, be it the same one written again, bears its mark, which is never 0. */
export interface MarkedJson extends KeptJson {
  readonly mark: number;
}

/** To those who listen on a channel. */
const hint = z.strictObject({ news: z.literal("hint"), channel: name, message: z.string().max(LIMITS.hint) });
export type Hint = z.infer<typeof hint>;

/** From a worker. */
export const workerNews = z.discriminatedUnion("news", [
  hint,
  /** It waits for its assignment. */
  z.strictObject({ news: z.literal("ready") }),
  /** Hints of its own were lost. */
  z.strictObject({ news: z.literal("missed") }),
  z.strictObject({ news: z.literal("listening"), address: z.strictObject({ host: z.string(), port: z.int() }) }),
  /** It can't start, and ends. */
  z.strictObject({ news: z.literal("failed"), reason: z.string().max(LIMITS.reason) }),
  /** Its last numbers, before it ends. */
  z.strictObject({ news: z.literal("metrics"), metrics: z.array(z.looseObject({ name: z.string() })) }),
]);
export type WorkerNews = z.infer<typeof workerNews>;

/** From the primary: what it asks a worker. */
export type PrimaryQuestion = "readiness" | "metrics";

/** What a worker is to be. */
export interface Assignment {
  /** From 1. A process that takes another's place has its number. */
  readonly number: number;
  /** Others of them serve already. */
  readonly replaces: boolean;
  /** Names all workers of this primary together. */
  readonly group: string;
  /** What all of them call themselves to the homeserver, so that each knows what the others have asked. */
  readonly pseudonym: string;
  readonly config: Config;
  /** Private keys, the current one first. */
  readonly secrets: readonly Uint8Array[];
  /** Of the primary's code; a worker with another one does not understand it. */
  readonly version: string;
}

/** From the primary. */
export type PrimaryNews =
  | Hint
  | { readonly news: "assignment"; readonly assignment: Assignment }
  /** Hints were lost. */
  | { readonly news: "missed" };
