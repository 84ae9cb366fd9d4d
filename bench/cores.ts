/** Which cores processes run on: sched_setaffinity(2), by util-linux's taskset. What a process starts later runs where it runs itself. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";

const run = promisify(execFile);

/** The second has one more if their number is odd. */
export interface Halves {
  readonly all: readonly number[];
  readonly first: readonly number[];
  readonly second: readonly number[];
}

/** Of the cores that this process may run on. @throws Error when there is but one, or no taskset */
export async function coresInHalves(): Promise<Halves> {
  const { stdout } = await run("taskset", ["-c", "-p", String(process.pid)]);
  const all = parseList(stdout.slice(stdout.lastIndexOf(" ") + 1));
  if (all.length < 2) throw new Error("with one core, there is nothing to share out");
  const half = Math.floor(all.length / 2);
  return { all, first: all.slice(0, half), second: all.slice(half) };
}

/** Moves all threads of these processes to these cores. @throws Error when one of them is gone */
export async function keepOn(cores: readonly number[], pids: readonly number[]): Promise<void> {
  for (const pid of pids) await run("taskset", ["-a", "-c", "-p", cores.join(","), String(pid)]);
}

/** As Linux writes it: `0-3,8`. */
export function parseList(list: string): number[] {
  return list.split(",").flatMap((part) => {
    const [first = Number.NaN, last = first] = part.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, index) => first + index);
  });
}
