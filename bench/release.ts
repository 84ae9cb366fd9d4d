/** The gateway as releases hold it: built code. From TypeScript it would start slower, and hold what strips the types. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";

const ROOT = join(import.meta.dirname, "..");

export interface Release {
  /** What starts it, once it is built. */
  readonly main: string;
  /** Those of bin/, then others. */
  readonly nodeFlags: readonly string[];
}

/** Of this tree. */
export const THIS_RELEASE = releaseIn(ROOT);

/** @param root of a tree that is built. @param nodeFlags beside those of bin/; of two that say the same the later one counts. */
export function releaseIn(root: string, nodeFlags: readonly string[] = []): Release {
  return { main: join(root, "dist/src/main.js"), nodeFlags: ["--min-semi-space-size=8", "--v8-pool-size=1", ...nodeFlags] };
}

/** As `npm run build` does. @throws Error with what the compiler said */
export async function build(): Promise<void> {
  const compiler = join(ROOT, "node_modules/typescript/bin/tsc");
  await promisify(execFile)(process.execPath, [compiler, "-p", join(ROOT, "tsconfig.build.json")], { cwd: ROOT });
}
