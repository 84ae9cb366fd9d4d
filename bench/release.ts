/** The gateway as releases hold it: built code. From TypeScript it would start slower, and hold what strips the types. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";

const ROOT = join(import.meta.dirname, "..");

/** What starts it, once it is built. */
export const MAIN = join(ROOT, "dist/src/main.js");

/** As `npm run build` does. @throws Error with what the compiler said */
export async function build(): Promise<void> {
  const compiler = join(ROOT, "node_modules/typescript/bin/tsc");
  await promisify(execFile)(process.execPath, [compiler, "-p", join(ROOT, "tsconfig.build.json")], { cwd: ROOT });
}
