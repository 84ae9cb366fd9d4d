/** What a process and all that it has started take, out of Linux's /proc: proc(5). */
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";

export interface TreeUsage {
  /** Milliseconds of CPU time, of children that have ended too, once their parent has noticed. */
  readonly cpu: number;
  /** Bytes in memory now. */
  readonly rss: number;
  /** The most bytes that each of them ever held, in all; of one process alone that is exact, of several a bound. */
  readonly peak: number;
  readonly processes: number;
}

interface ProcessStat {
  readonly pid: number;
  readonly parent: number;
  /** Milliseconds. */
  readonly cpu: number;
}

/** USER_HZ: 100 on all machines that Node runs on. */
const TICK = 10;

/** @throws Error when the process is gone */
export async function usageOf(root: number, proc = "/proc"): Promise<TreeUsage> {
  const tree = treeOf(root, await allProcesses(proc));
  if (tree.length === 0) throw new Error(`there is no process ${root}`);
  const memory = await Promise.all(tree.map(({ pid }) => memoryOf(pid, proc)));
  return {
    cpu: sum(tree.map(({ cpu }) => cpu)),
    rss: sum(memory.map(({ rss }) => rss)),
    peak: sum(memory.map(({ peak }) => peak)),
    processes: tree.length,
  };
}

/** A line of /proc/PID/stat; undefined when it is none. */
export function parseStat(line: string): ProcessStat | undefined {
  // The second field is a name in brackets that may itself hold anything.
  const end = line.lastIndexOf(")");
  const pid = Number.parseInt(line, 10);
  const fields = line.slice(end + 2).split(" ");
  // Fields 4 and 14 to 17: parent; user and system time of its own, and of ended children.
  const [parent = Number.NaN, ...times] = [1, 11, 12, 13, 14].map((at) => Number(fields[at]));
  const cpu = sum(times) * TICK;
  return end === -1 || [pid, parent, cpu].some(Number.isNaN) ? undefined : { pid, parent, cpu };
}

/** Those that the root has started, and those that they have; the root first. */
function treeOf(root: number, all: readonly ProcessStat[]): ProcessStat[] {
  const tree = all.filter(({ pid }) => pid === root);
  for (const { pid } of tree) tree.push(...all.filter(({ parent }) => parent === pid));
  return tree;
}

async function allProcesses(proc: string): Promise<ProcessStat[]> {
  const pids = (await readdir(proc)).filter((name) => /^\d+$/.test(name));
  const lines = await Promise.all(pids.map((pid) => readIfThere(join(proc, pid, "stat"))));
  return lines.map(parseStat).filter((stat) => stat !== undefined);
}

/** Nothing, of one that has ended meanwhile. */
async function memoryOf(pid: number, proc: string): Promise<{ rss: number; peak: number }> {
  const status = await readIfThere(join(proc, String(pid), "status"));
  const field = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)?.[1] ?? 0) * 1024;
  return { rss: field("VmRSS"), peak: field("VmHWM") };
}

async function readIfThere(path: string): Promise<string> {
  return readFile(path, "utf8").catch(() => "");
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, one) => total + one, 0);
}
