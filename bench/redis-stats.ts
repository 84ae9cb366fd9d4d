/** What Redis says of itself: https://redis.io/docs/latest/commands/info/ and https://redis.io/docs/latest/commands/memory-stats/ */

/** By command. */
export type CommandCounts = ReadonlyMap<string, number>;

/** Those that the benchmark itself sends, or that keep a connection. */
const NOT_COUNTED = new Set(["info", "flushall", "ping", "hello", "select", "client"]);

/** What `INFO commandstats` says. */
export function parseCommandStats(text: string): CommandCounts {
  const lines = text.matchAll(/^cmdstat_([^:|]+)(?:\|[^:]*)?:calls=(\d+),/gm);
  const counts = new Map<string, number>();
  for (const [, name = "", calls] of lines) {
    if (!NOT_COUNTED.has(name)) counts.set(name, (counts.get(name) ?? 0) + Number(calls));
  }
  return counts;
}

/** Commands between two such counts. */
export function commandsBetween(before: CommandCounts, after: CommandCounts): number {
  let total = 0;
  for (const [name, calls] of after) total += calls - (before.get(name) ?? 0);
  return total;
}

/**
 * Bytes that the values of the first database take, names and tables included, clients' buffers not, by what `MEMORY STATS` says: names and values in turn.
 * @throws TypeError for anything else
 */
export function parseMemoryStats(stats: unknown): number {
  const tables = fieldsOf(stats).get("db.0");
  const sizes = [fieldsOf(stats).get("dataset.bytes"), tables === undefined ? 0 : fieldsOf(tables).get("overhead.hashtable.main")];
  return sizes.reduce<number>((sum, size) => sum + Number(size), 0);
}

function fieldsOf(list: unknown): ReadonlyMap<unknown, unknown> {
  if (!Array.isArray(list)) throw new TypeError("not what MEMORY STATS says");
  return new Map(Array.from({ length: list.length / 2 }, (_, index): [unknown, unknown] => [list[2 * index], list[2 * index + 1]]));
}
