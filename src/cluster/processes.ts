/** Workers and their primary as processes of `node:cluster`: they share listening ports, and are connected by a pipe. */
import cluster from "node:cluster";
import type { Port } from "./channel.ts";
import type { WorkerProcess } from "./crew.ts";

/** The first argument of a worker's command line. */
export const WORKER_COMMAND = "worker";

/** Runs this program once more, as a worker. @throws the system's error */
export function forkWorker(): WorkerProcess {
  // Configurations hold keys, as bytes.
  cluster.setupPrimary({ args: [WORKER_COMMAND], serialization: "advanced" });
  const worker = cluster.fork();
  return {
    pid: worker.process.pid,
    send: (message, sent) => void worker.process.send(message as object, sent),
    listen: (listener) => void worker.on("message", listener),
    kill: (signal) => void worker.process.kill(signal),
    ended(listener) {
      // A process that was never made has no exit; errors of one that was are no end.
      worker.on("error", (error: NodeJS.ErrnoException) => {
        if (worker.process.pid === undefined) listener(`could not be started (${error.code ?? error.message})`, false);
      });
      worker.on("exit", (code: number | null, signal: string | null) => {
        listener(signal === null ? `ended with status ${code}` : `was ended by ${signal}`, code === 0);
      });
    },
  };
}

/** What connects this worker to its primary; undefined: it has none. */
export function primaryPort(): Port | undefined {
  const { worker } = cluster;
  if (worker === undefined || process.send === undefined) return undefined;
  return {
    send: (message, sent) => void process.send?.(message, undefined, undefined, sent),
    listen: (listener) => void process.on("message", listener),
  };
}

/** Calls back when the primary is gone; without it, Node ends a worker then and there. */
export function onPrimaryGone(listener: () => void): void {
  const { worker } = cluster;
  worker?.once("disconnect", () => {
    worker.exitedAfterDisconnect = true;
    listener();
  });
}
