/** The figures of a row, run by run and in the middle of all runs. */
import type { LoadResult } from "./load-spec.ts";
import type { Watched } from "./watch.ts";

/** What a load came to. Times are milliseconds, sizes bytes. */
export interface Figures {
  readonly requestsPerSecond: number;
  /** Of the answers' bodies. */
  readonly bytesPerSecond: number;
  readonly seconds: number;
  readonly p50: number;
  readonly p99: number;
  readonly firstByteP50: number;
  readonly firstByteP99: number;
  /** Of the gateways' processes with all that they start; NaN where nobody knows them. */
  readonly cpuPerRequest: number;
  readonly cpuPerMiB: number;
  readonly idleMemory: number;
  readonly peakMemory: number;
}

const MIB = 1024 * 1024;

/** @param watched undefined where the processes are not known */
export function figuresOf(result: LoadResult, watched?: Watched): Figures {
  const { requests, bytes, elapsed, latency, firstByte } = result;
  const { cpu, idle, peak } = watched ?? { cpu: Number.NaN, idle: Number.NaN, peak: Number.NaN };
  return {
    requestsPerSecond: (requests / elapsed) * 1000,
    bytesPerSecond: (bytes / elapsed) * 1000,
    seconds: elapsed / 1000,
    p50: latency.p50,
    p99: latency.p99,
    firstByteP50: firstByte.p50,
    firstByteP99: firstByte.p99,
    cpuPerRequest: cpu / requests,
    cpuPerMiB: cpu / (bytes / MIB),
    idleMemory: idle,
    peakMemory: peak,
  };
}

/** Each figure's own median. */
export function medianOf<T extends Readonly<Record<keyof T, number>>>(runs: readonly T[]): T {
  const [first] = runs;
  if (first === undefined) throw new RangeError("there is no run");
  const keys = Object.keys(first) as (keyof T)[];
  return Object.fromEntries(keys.map((key) => [key, median(runs.map((run) => run[key]))])) as T;
}

/** Of an even number, the mean of the two in the middle. NaN when one of them is. */
export function median(numbers: readonly number[]): number {
  if (numbers.some(Number.isNaN)) return Number.NaN;
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return ((sorted[Math.ceil(middle) - 1] ?? Number.NaN) + (sorted[Math.floor(middle)] ?? Number.NaN)) / 2;
}
