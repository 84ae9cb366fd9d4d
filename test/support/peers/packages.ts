import { execFile } from "node:child_process";
import { existsSync, globSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const execute = promisify(execFile);
const SCRIPT = fileURLToPath(new URL("install.sh", import.meta.url));

const PROGRAMS = ["c-icap", "clamd", "sigtool", "clamdscan", "redis-server", "unzip", "e2guardian"];
const FOLDERS = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];

/**
 * Installs what is missing of c-icap, e2guardian, ClamAV and Redis; returns at once when all is there.
 * @throws Error that says what to do, where it can't
 */
export async function ensurePackages(): Promise<void> {
  const missing = missingPrograms();
  if (missing.length === 0) return;
  const need = `The integration tests need ${missing.join(", ")}`;
  if (!existsSync("/usr/bin/apt-get")) throw new Error(`${need}: run them on Debian 12, or where a Docker engine answers.`);
  if (process.getuid?.() !== 0) throw new Error(`${need}: run \`sudo ${SCRIPT}\` once, or start a Docker engine.`);
  try {
    await execute(SCRIPT, [], { maxBuffer: 64 * 1024 * 1024 });
  } catch (cause) {
    throw new Error(`${need}, and ${SCRIPT} could not install them.`, { cause });
  }
}

function missingPrograms(): string[] {
  const missing = PROGRAMS.filter((program) => !FOLDERS.some((folder) => existsSync(`${folder}/${program}`)));
  return modulesDirectory() === undefined ? [...missing, "c-icap's virus_scan and clamd_mod"] : missing;
}

function modulesDirectory(): string | undefined {
  return globSync("/usr/lib/*/c_icap/virus_scan.so").find((path) => existsSync(path.replace("virus_scan.so", "clamd_mod.so")));
}
