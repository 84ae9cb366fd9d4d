/** Processes of the benchmark itself. They end with it, however it ends: they leave when their parent disconnects. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";

/** @param name of a file in this directory */
export function startChild(name: string, ...args: readonly string[]): ChildProcess {
  return fork(join(import.meta.dirname, name), args);
}

/** What it says next. @throws Error when it ends instead */
export function nextMessage<T>(child: ChildProcess): Promise<T> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null): void => {
      child.off("message", heard);
      reject(new Error(`a process of the benchmark ended with ${code}`));
    };
    const heard = (message: unknown): void => {
      child.off("exit", ended);
      resolve(message as T);
    };
    child.once("message", heard).once("exit", ended);
  });
}

/** At once; resolves when it is gone. */
export async function endChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, "exit");
  child.kill("SIGKILL");
  await exited;
}
