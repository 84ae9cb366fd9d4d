import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const execute = promisify(execFile);

const REQUIREMENTS = fileURLToPath(new URL("../e2e/requirements.txt", import.meta.url));
const MAKE = fileURLToPath(new URL("../e2e/make-venv.py", import.meta.url));

let made: Promise<string> | undefined;

/**
 * The Python that has Synapse and vodozemac, as `test/e2e/requirements.txt` pins them: in a virtual environment of the tests' own in the user's
 * cache folder, made the first time (half a minute).
 * @throws Error that says what is missing
 */
export function python(): Promise<string> {
  made ??= environment();
  return made;
}

async function environment(): Promise<string> {
  const version = await execute("python3", ["--version"]).catch((cause: unknown) => {
    throw new Error("The end-to-end tests need Synapse, and it needs python3 (3.10 or later), which is not there.", { cause });
  });
  const hash = createHash("sha256")
    .update(await readFile(REQUIREMENTS))
    .update(`${version.stdout} ${process.arch}`);
  const cache = process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache");
  const directory = join(cache, "matrix-icap-gateway-test", hash.digest("hex").slice(0, 16));
  try {
    await execute("python3", [MAKE, directory, REQUIREMENTS], { maxBuffer: 16 * 1024 * 1024 });
  } catch (cause) {
    const told = cause instanceof Error && "stdout" in cause && "stderr" in cause ? `${String(cause.stdout)}${String(cause.stderr)}` : "";
    throw new Error(
      `The end-to-end tests need Synapse from PyPI, and pip could not install ${REQUIREMENTS}. Is PyPI to be reached? Is Debian's python3-venv there (test/e2e/install.sh)?\n${told.slice(-2000)}`,
      { cause },
    );
  }
  return join(directory, "bin", "python");
}
