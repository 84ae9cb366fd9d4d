/**
 * `npm test`: types, lint, format, dead code, then every test; the last line counts the tests. `npm test -- PATH` runs the tests under a path
 * alone. The end-to-end tests need PyPI and reverse proxies: where those can't be had they are left out, with a line that says why; in CI, and when they
 * are asked for, that is a failure.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { preparePrerequisites } from "../test/e2e/prerequisites.ts";

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
function runTests(options: readonly string[]): { ok: boolean; counts: Counts | undefined } {
  const directory = mkdtempSync(join(tmpdir(), "mig-test-"));
  try {
    const file = join(directory, "results.json");
    const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${file}`];
    const ok = run("node_modules/vitest/vitest.mjs", "run", ...reporters, ...options);
    return { ok, counts: JSON.parse(readFileSync(file, "utf8")) as Counts };
  } catch (error) {
    console.error(error);
    return { ok: false, counts: undefined };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** What keeps vitest from the end-to-end tests; nothing where they can run. @throws Error where they must run and can't. */
async function endToEndExclusion(filters: readonly string[]): Promise<readonly string[]> {
  const wanted = filters.length === 0 || filters.some((filter) => filter.includes("e2e"));
  if (!wanted) return [];
  try {
    await preparePrerequisites();
    return [];
  } catch (error) {
    if (process.env["CI"] !== undefined || filters.length > 0) throw error;
    console.warn(`The end-to-end tests are left out: ${error instanceof Error ? error.message : String(error)}`);
    return ["--exclude", "test/e2e/**"];
  }
}

const filters = process.argv.slice(2);
const exclusion = await endToEndExclusion(filters);
const failedChecks = filters.length > 0 ? [] : CHECKS.filter(([, script, ...args]) => !run(script, ...args)).map(([what]) => what);
const { ok, counts } = runTests([...filters, ...exclusion]);
for (const what of failedChecks) console.error(`FAILED: ${what}`);
const skipped = (counts?.numPendingTests ?? 0) + (counts?.numTodoTests ?? 0);
const failed = (counts?.numFailedTests ?? 0) + failedChecks.length + (ok || (counts?.numFailedTests ?? 0) > 0 ? 0 : 1);
console.log(`${counts?.numPassedTests ?? 0} passed, ${failed} failed, ${skipped} skipped`);
process.exitCode = failed === 0 && (counts?.numPassedTests ?? 0) > 0 ? 0 : 1;
