/**
 * `npm run bench`: what the gateway does in a second, what it takes for that, and how much there was to be had. docs/performance.md says how each row is
 * measured. Linux only: it reads /proc.
 */
import { BASE_PATH } from "../src/http/app.ts";
import { USAGE, chosen, explaining, parseCommandLine } from "./command-line.ts";
import { build } from "./release.ts";
import { type GroupReport, isFailure, markdownReport, progressLine, textReport } from "./report.ts";
import { GROUPS } from "./rows/index.ts";
import { type Outcome, Runner } from "./run-row.ts";
import { Stage } from "./stage.ts";

await explaining(USAGE, () => run(process.argv.slice(2)));

async function run(args: readonly string[]): Promise<void> {
  const options = parseCommandLine(args, BASE_PATH);
  if (options.list) return void process.stdout.write(listing());
  const groups = chosen(GROUPS, options);
  const { baseUrl, pid, profile, homeserverPort } = options;
  await using stage = new Stage({ homeserverPort, ...(profile === undefined ? {} : { profile }) });
  const runner = new Runner(stage, {
    runs: options.runs,
    duration: options.seconds * 1000,
    warmUp: options.warmUp * 1000,
    ...(baseUrl === undefined ? {} : { given: { urls: [baseUrl], pids: pid === undefined ? [] : [pid] } }),
  });
  if (baseUrl === undefined) await build();
  const reports: GroupReport[] = [];
  let failed = false;
  for (const group of groups) {
    const outcomes: Outcome[] = [];
    for (const row of group.rows) {
      const outcome = await runner.run(row);
      // Standard output is for the tables.
      process.stderr.write(`${progressLine(outcome)}\n`);
      failed ||= isFailure(outcome);
      outcomes.push(outcome);
    }
    reports.push({ group, outcomes });
  }
  process.stdout.write(`${rendered(reports, options.format)}\n`);
  if (failed) process.exitCode = 1;
}

function rendered(reports: readonly GroupReport[], format: "text" | "json" | "markdown"): string {
  if (format === "json") return JSON.stringify(reports, undefined, 2);
  return reports.map(format === "markdown" ? markdownReport : textReport).join("\n\n");
}

function listing(): string {
  const lines = GROUPS.flatMap(({ name, title, onlyIfAsked, rows }) => [
    `${name}: ${title}${onlyIfAsked === true ? " (only if asked for)" : ""}`,
    ...rows.map((row) => `  ${row.name.padEnd(32)} ${row.title}`),
    "",
  ]);
  return lines.join("\n");
}
