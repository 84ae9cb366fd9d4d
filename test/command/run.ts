import { type ChildProcess, spawn } from "node:child_process";
import { tmpdir } from "node:os";

const MAIN = new URL("../../src/main.ts", import.meta.url).pathname;

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** `matrix-icap-gateway icap …` in a process of its own; `started` gets hold of it. */
export function icap(args: readonly string[], started: (child: ChildProcess) => void = () => {}): Promise<Ended> {
  const env = { HOME: tmpdir(), PATH: process.env["PATH"] };
  const child = spawn(process.execPath, [MAIN, "icap", ...args], {
    env,
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 50_000,
    killSignal: "SIGKILL",
  });
  const output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) child[name].setEncoding("utf8").on("data", (text: string) => (output[name] += text));
  started(child);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ code, signal, ...output }));
  });
}

/** Cells of a table's rows, the heading included. */
export function cells(stdout: string): string[][] {
  return stdout
    .trimEnd()
    .split("\n")
    .map((line) => line.split(/ {2,}/).filter((cell) => cell !== ""));
}

/** Of output that is one JSON value a line. */
export function jsonLines(stdout: string): unknown[] {
  return stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as unknown);
}
