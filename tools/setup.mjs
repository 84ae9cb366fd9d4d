// What a fresh clone needs before anything else runs: the packages of the lock file, installed once. Plain JavaScript for Node 20 and later.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** Runs `npm ci` unless these very packages are installed already. Ends the process when it fails. */
export function ensurePackages() {
  const wanted = createHash("sha256")
    .update(readFileSync(`${ROOT}package-lock.json`))
    .digest("hex");
  const stamp = `${ROOT}node_modules/.installed-from`;
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return;
  console.error("Installing packages (npm ci) …");
  // Its warnings are about the Node that runs npm; everything of ours runs on the Node 26 that is among the packages.
  const { status } = spawnSync("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: ROOT,
    stdio: ["ignore", 2, 2],
    shell: process.platform === "win32",
  });
  if (status !== 0) {
    console.error("npm ci failed; what it said stands above");
    process.exit(status ?? 1);
  }
  writeFileSync(stamp, wanted);
}
