import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { findNginx } from "../support/nginx.ts";
import { python } from "../support/synapse-environment.ts";

const execute = promisify(execFile);

const INSTALL = fileURLToPath(new URL("install.sh", import.meta.url));

/**
 * Gets what the end-to-end tests need beside the integration tests' peers: nginx and Python's venv from Debian's packages, then Synapse and vodozemac
 * from PyPI. Quick when all is there.
 * @throws Error that says what is missing, and what to do
 */
export async function preparePrerequisites(): Promise<void> {
  if (!(await haveDebianPackages()) && process.getuid?.() === 0 && existsSync("/usr/bin/apt-get")) {
    await execute(INSTALL, [], { maxBuffer: 64 * 1024 * 1024 }).catch((cause: unknown) => {
      throw new Error(`The end-to-end tests need nginx and python3-venv, and ${INSTALL} could not install them.`, { cause });
    });
  }
  findNginx();
  await python();
}

async function haveDebianPackages(): Promise<boolean> {
  try {
    findNginx();
    await execute("python3", ["-c", "import ensurepip, venv"]);
    return true;
  } catch {
    return false;
  }
}
