import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { findNginx } from "../support/nginx.ts";
import { python } from "../support/synapse-environment.ts";

const execute = promisify(execFile);

const INSTALL = fileURLToPath(new URL("install.sh", import.meta.url));

/**
 * Gets what the end-to-end tests need beside the integration tests' peers: nginx, Caddy, HAProxy and Python's venv from Debian's packages, then Synapse and vodozemac
 * from PyPI. Quick when all is there.
 * @throws Error that says what is missing, and what to do
 */
export async function preparePrerequisites(): Promise<void> {
  if (!(await haveDebianPackages()) && process.getuid?.() === 0 && existsSync("/usr/bin/apt-get")) {
    await execute(INSTALL, [], { maxBuffer: 64 * 1024 * 1024 }).catch((cause: unknown) => {
      throw new Error(`The end-to-end tests need nginx, Caddy, HAProxy and python3-venv, and ${INSTALL} could not install them.`, {
        cause,
      });
    });
  }
  findNginx();
  await Promise.all(OTHER_PROXIES.map(([program, argument]) => execute(program, [argument], { env: SBIN }).catch(missing(program))));
  await python();
}

const OTHER_PROXIES = [
  ["caddy", "version"],
  ["haproxy", "-v"],
] as const;
/** Debian keeps daemons there, which is not on everybody's path. */
const SBIN = { ...process.env, PATH: `${process.env["PATH"] ?? ""}:/usr/sbin` };

function missing(program: string): (cause: unknown) => never {
  return (cause) => {
    throw new Error(`The end-to-end tests need ${program}: run \`sudo test/e2e/install.sh\` once.`, { cause });
  };
}

async function haveDebianPackages(): Promise<boolean> {
  try {
    findNginx();
    await Promise.all(OTHER_PROXIES.map(([program, argument]) => execute(program, [argument], { env: SBIN })));
    await execute("python3", ["-c", "import ensurepip, venv"]);
    return true;
  } catch {
    return false;
  }
}
