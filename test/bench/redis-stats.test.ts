import { expect, it } from "vitest";
import { commandsBetween, parseCommandStats, parseMemoryStats } from "../../bench/redis-stats.ts";

/** What Redis says when it has been asked so often. */
function stats(calls: Readonly<Record<string, number>>): string {
  const lines = Object.entries(calls).map(
    ([name, count]) => `cmdstat_${name}:calls=${count},usec=5,usec_per_call=1.2,rejected_calls=0,failed_calls=0`,
  );
  return `# Commandstats\r\n${lines.join("\r\n")}\r\n`;
}

it("counts the commands between two looks, without those that the benchmark sends itself", () => {
  const before = parseCommandStats(stats({ getrange: 10, set: 5, info: 3, "client|setname": 1 }));
  const after = parseCommandStats(stats({ getrange: 17, set: 5, info: 4, ping: 8, "script|load": 2, "client|setname": 2, evalsha: 1 }));
  expect(commandsBetween(before, after)).toBe(10);
  expect(commandsBetween(after, after)).toBe(0);
});

it("adds up what values take, with their tables", () => {
  const tables = ["overhead.hashtable.main", 300, "overhead.hashtable.expires", 40];
  expect(parseMemoryStats(["peak.allocated", 9999, "db.0", tables, "dataset.bytes", 2000, "dataset.percentage", "10"])).toBe(2300);
  expect(parseMemoryStats(["peak.allocated", 9999, "dataset.bytes", 20])).toBe(20);
  expect(() => parseMemoryStats("OK")).toThrow(TypeError);
});
