import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseStat, usageOf } from "../../bench/process-tree.ts";

/** As the kernel writes it; the name may hold blanks and brackets. */
function statLine(pid: number, parent: number, [user, system, childUser, childSystem]: readonly number[], name = "node"): string {
  return `${pid} (${name}) S ${parent} ${pid} ${pid} 0 -1 4194560 1 2 3 4 ${user} ${system} ${childUser} ${childSystem} 20 0 11 0 0 0 0\n`;
}

describe("a line of /proc/PID/stat", () => {
  it("tells the parent and the CPU time of a process and its ended children", () => {
    expect(parseStat(statLine(42, 7, [100, 20, 3, 4]))).toEqual({ pid: 42, parent: 7, cpu: 1270 });
    expect(parseStat(statLine(42, 7, [1, 0, 0, 0], "a) S 1 (b"))).toEqual({ pid: 42, parent: 7, cpu: 10 });
  });

  it.each(["", "42", "42 (node", "x (node) S 1 2 3", "42 (node) S 1"])("%j is none", (line) => {
    expect(parseStat(line)).toBeUndefined();
  });
});

describe("a process and all that it has started", () => {
  let proc: string;

  beforeAll(async () => {
    proc = await mkdtemp(join(tmpdir(), "mig-proc-"));
    await mkdir(join(proc, "self"));
    const add = async (pid: number, parent: number, cpu: readonly number[], rss: number, peak: number): Promise<void> => {
      await mkdir(join(proc, String(pid)));
      await writeFile(join(proc, String(pid), "stat"), statLine(pid, parent, cpu));
      await writeFile(join(proc, String(pid), "status"), `Name:\tnode\nVmHWM:\t  ${peak} kB\nVmRSS:\t  ${rss} kB\n`);
    };
    await add(30, 20, [5, 0, 0, 0], 1, 1);
    await add(10, 1, [1, 2, 3, 4], 100, 200);
    await add(20, 10, [10, 0, 0, 0], 10, 20);
    await add(11, 1, [1000, 0, 0, 0], 1000, 1000);
    // One that ends while it is looked at.
    await mkdir(join(proc, "40"));
  });

  afterAll(() => rm(proc, { recursive: true }));

  it("adds up, and nobody else with it", async () => {
    expect(await usageOf(10, proc)).toEqual({ cpu: 250, rss: 111 * 1024, peak: 221 * 1024, processes: 3 });
    expect(await usageOf(20, proc)).toMatchObject({ cpu: 150, processes: 2 });
  });

  it("is an error when it is gone", async () => {
    await expect(usageOf(12, proc)).rejects.toThrow("no process 12");
  });

  it.runIf(process.platform === "linux")("is found where the kernel shows it", async () => {
    const shell = spawn("sh", ["-c", "cat; true"], { stdio: ["pipe", "pipe", "inherit"] });
    // What comes back has been through the shell's child.
    shell.stdin.write("x");
    await once(shell.stdout, "data");
    const { rss, peak, processes } = await usageOf(shell.pid ?? 0);
    expect(processes).toBe(2);
    expect(rss).toBeGreaterThan(0);
    expect(peak).toBeGreaterThanOrEqual(rss);
    shell.stdin.end();
    shell.kill();
    await once(shell, "exit");
  });
});
