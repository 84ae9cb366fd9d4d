import { availableParallelism } from "node:os";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { describe, expect, it } from "vitest";
import { coresInHalves, keepOn, parseList } from "../../bench/cores.ts";

describe("cores", () => {
  it.each([
    ["0", [0]],
    ["0,1", [0, 1]],
    ["0-3,8", [0, 1, 2, 3, 8]],
    ["2-3,6-7\n", [2, 3, 6, 7]],
  ])("reads %j", (list, cores) => {
    expect(parseList(list)).toEqual(cores);
  });

  it.runIf(process.platform === "linux" && availableParallelism() > 1)("keeps a process, and what it starts, on some of them", async () => {
    const { all, first, second } = await coresInHalves();
    expect([...first, ...second]).toEqual(all);
    const child = spawn("sh", ["-c", "read _; sh -c 'grep Cpus_allowed_list /proc/self/status'"], { stdio: ["pipe", "pipe", "inherit"] });
    await keepOn(second, [child.pid ?? 0]);
    child.stdin.end("go\n");
    const [output] = (await once(child.stdout, "data")) as [Buffer];
    expect(parseList(output.toString().split("\t")[1] ?? "")).toEqual(second);
  });
});
