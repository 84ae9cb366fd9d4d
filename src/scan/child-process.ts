/** Runs a program by itself: no shell, no input, no output, and its process group ends when it does. */
import { spawn } from "node:child_process";

export interface ChildEnd {
  /** Null when a signal ended it. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/**
 * Resolves when the program has ended; what it left running in its process group is killed then. An abort kills the whole group, and then
 * rejects once the program is gone.
 * @throws the error of the system when it can't be started; the signal's reason.
 */
export async function runChild(
  command: string,
  parameters: readonly string[],
  env: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<ChildEnd> {
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    // A group of its own, so that what it started can be killed with it.
    const child = spawn(command, parameters, { env, detached: true, stdio: "ignore" });
    const kill = () => killGroup(child.pid);
    signal.addEventListener("abort", kill, { once: true });
    child.once("error", (error) => {
      signal.removeEventListener("abort", kill);
      reject(error);
    });
    child.once("exit", (code, endSignal) => {
      signal.removeEventListener("abort", kill);
      // What it started in the background could go on with the file. Its number is not given to another group while this one has members.
      kill();
      if (signal.aborted) reject(signal.reason as Error);
      else resolve({ code, signal: endSignal });
    });
  });
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // Nobody is left in it.
  }
}
