import { execFile, spawn } from "node:child_process";
import { openSync, closeSync, rmSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { randomInt } from "node:crypto";
import { type Socket, createSocket } from "node:dgram";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Daemon, Machine, Port } from "./machine.ts";

const execute = promisify(execFile);

/** Debian keeps daemons in sbin, which is not on everybody's path. */
const ENVIRONMENT = { ...process.env, PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin`, LC_ALL: "C" };

export function startLocalMachine(): Machine {
  const directories = new Set<string>();
  process.on("exit", () => {
    for (const directory of directories) rmSync(directory, { recursive: true, force: true });
  });
  return {
    async makeDirectory() {
      const directory = await mkdtemp(join(tmpdir(), "mig-peer-"));
      directories.add(directory);
      return directory;
    },
    async remove(path) {
      await rm(path, { recursive: true, force: true });
      directories.delete(path);
    },
    write: (path, content) => writeFile(path, content),
    read: (path) => readFile(path, "utf8"),
    async run([file = "", ...args]) {
      const { stdout } = await execute(file, args, { env: ENVIRONMENT, maxBuffer: 16 * 1024 * 1024 });
      return stdout;
    },
    start: async (command, log) => startDaemon(command, log),
    freePort,
  };
}

/** Ends its whole process group when its end of the pipe closes, and so when the test process ends, even by SIGKILL. */
const LEASH = '(read _; kill -KILL 0) <&3 & exec "$@" 3<&-';

function startDaemon(command: readonly string[], log: string): Daemon {
  const output = openSync(log, "a");
  const child = spawn("sh", ["-c", LEASH, "sh", ...command], {
    detached: true,
    env: ENVIRONMENT,
    stdio: ["ignore", output, output, "pipe"],
  });
  closeSync(output);
  child.unref();
  const leash = child.stdio[3];
  leash?.on("error", () => undefined);
  let ended = false;
  child.once("error", () => (ended = true));
  child.once("exit", () => {
    ended = true;
    leash?.destroy();
  });
  return {
    signal: async (name) => {
      if (child.pid !== undefined && !ended) process.kill(-child.pid, name);
    },
    alive: async () => !ended,
  };
}

/** Below those that systems hand out themselves, to who listens on port 0 and to who connects. */
const PORTS = { first: 20_000, count: 12_000 };
const LOOPBACK = "127.0.0.1";

/**
 * A port that is this process's own, whether a daemon listens on it at the moment or not, until the process ends: what claims it is a UDP
 * socket of the same number, which no daemon wants and no other test process can have too.
 */
async function freePort(): Promise<Port> {
  for (let attempt = 0; attempt < 1000; attempt += 1) {
    const port = PORTS.first + randomInt(PORTS.count);
    const claim = await bound(port);
    if (claim === undefined) continue;
    if (await isFree(port)) return { listen: LOOPBACK, inside: port, host: LOOPBACK, outside: port };
    claim.close();
  }
  throw new Error("no free port was found");
}

async function bound(port: number): Promise<Socket | undefined> {
  const socket = createSocket("udp4");
  try {
    socket.bind({ port, address: LOOPBACK, exclusive: true });
    await once(socket, "listening");
    return socket.unref();
  } catch {
    socket.close();
    return undefined;
  }
}

/** Whether nobody listens there. */
async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  try {
    server.listen(port, LOOPBACK);
    await once(server, "listening");
  } catch {
    return false;
  }
  server.close();
  await once(server, "close");
  return true;
}
