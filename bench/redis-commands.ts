/** How often Redis was asked for what: https://redis.io/docs/latest/commands/info/ */

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
