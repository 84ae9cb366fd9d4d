/** `npm test`: types, lint, format, dead code, then every test; the last line counts the tests. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

interface Counts {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  readonly success: boolean;
}

const CHECKS: readonly (readonly [what: string, script: string, ...args: string[]])[] = [
  ["types", "node_modules/typescript/bin/tsc", "-p", "."],
  ["lint", "node_modules/oxlint/bin/oxlint", "--deny-warnings", "."],
  ["format", "node_modules/oxfmt/bin/oxfmt", "--check", "."],
  ["dead code", "node_modules/knip/bin/knip.js"],
];

function run(script: string, ...args: string[]): boolean {
  return spawnSync(process.execPath, [script, ...args], { stdio: "inherit" }).status === 0;
}

/** Vitest's own exit code counts too: an error outside any test fails the run. */
function runTests(filters: readonly string[]): { ok: boolean; counts: Counts | undefined } {
  const directory = mkdtempSync(join(tmpdir(), "mig-test-"));
  try {
    const file = join(directory, "results.json");
    const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${file}`];
    const ok = run("node_modules/vitest/vitest.mjs", "run", ...reporters, ...filters);
    return { ok, counts: JSON.parse(readFileSync(file, "utf8")) as Counts };
  } catch (error) {
    console.error(error);
    return { ok: false, counts: undefined };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const filters = process.argv.slice(2);
const failedChecks = filters.length > 0 ? [] : CHECKS.filter(([, script, ...args]) => !run(script, ...args)).map(([what]) => what);
const { ok, counts } = runTests(filters);
for (const what of failedChecks) console.error(`FAILED: ${what}`);
const skipped = (counts?.numPendingTests ?? 0) + (counts?.numTodoTests ?? 0);
const failed = (counts?.numFailedTests ?? 0) + failedChecks.length + (ok || (counts?.numFailedTests ?? 0) > 0 ? 0 : 1);
console.log(`${counts?.numPassedTests ?? 0} passed, ${failed} failed, ${skipped} skipped`);
process.exitCode = failed === 0 && (counts?.numPassedTests ?? 0) > 0 ? 0 : 1;
