/** Outcomes as people read them. */
import { table } from "../quickstart/table.ts";
import type { Group } from "./row.ts";
import type { FactOutcome, LoadOutcome, Outcome } from "./run-row.ts";

/** A group's outcomes, in the order of its rows. */
export interface GroupReport {
  readonly group: Group;
  readonly outcomes: readonly Outcome[];
}

type Cell = string | number;

const COLUMNS = [
  "row",
  "at once",
  "requests/s",
  "MB/s",
  "p50 ms",
  "p99 ms",
  "first byte ms",
  "CPU ms/request",
  "CPU ms/MiB",
  "idle MB",
  "peak MB",
  "homeserver itself",
  "raw ICAP",
  "beside",
] as const;

const NONE = "–";

export function textReport({ group, outcomes }: GroupReport): string {
  return [group.title, ...tablesOf(outcomes).map(({ heading, rows }) => table(heading, rows)), ...complaints(outcomes)].join("\n\n");
}

export function markdownReport({ group, outcomes }: GroupReport): string {
  const tables = tablesOf(outcomes).map(({ heading, rows }) => {
    const ruler = heading.map((_title, column) => (rows.every((row) => typeof row[column] === "number") ? "---:" : "---"));
    return [heading, ruler, ...rows].map(markdownLine).join("\n");
  });
  return [`### ${group.title}`, ...tables, ...complaints(outcomes)].join("\n\n");
}

function markdownLine(cells: readonly Cell[]): string {
  return `| ${cells.map((cell) => String(cell).replaceAll("|", "\\|")).join(" | ")} |`;
}

/** Whether its figures, if it has any, say nothing. */
export function isFailure(outcome: Outcome): boolean {
  return "failure" in outcome || ("errors" in outcome && (outcome.errors > 0 || !(outcome.figures.requestsPerSecond > 0)));
}

/** One line, while the next row is under way. */
export function progressLine(outcome: Outcome): string {
  const { name } = outcome.row;
  if (isFailure(outcome)) return `${name}: ${complaint(outcome)}`;
  if (!("figures" in outcome)) return `${name}: ${"facts" in outcome ? factsText(outcome.facts) : ""}`;
  const { requestsPerSecond, p50 } = outcome.figures;
  return `${name}: ${rounded(requestsPerSecond)} requests/s, p50 ${rounded(p50)} ms`;
}

function tablesOf(outcomes: readonly Outcome[]): { heading: readonly string[]; rows: Cell[][] }[] {
  const loads = outcomes.flatMap((outcome) => ("figures" in outcome ? [loadCells(outcome)] : []));
  const facts = outcomes.flatMap((outcome) => ("figures" in outcome || "failure" in outcome ? [] : factCells(outcome)));
  return [
    ...(loads.length === 0 ? [] : [withoutEmpty(COLUMNS, loads)]),
    ...(facts.length === 0 ? [] : [{ heading: ["row", "what", "value"], rows: facts }]),
  ];
}

function loadCells(outcome: LoadOutcome): Cell[] {
  const { row, figures, ceilings, facts } = outcome;
  const media = !row.endpoint.startsWith("scan");
  const { homeserver, icap } = ceilings;
  const burst = row.requests !== undefined;
  return [
    isFailure(outcome) ? `${row.title}: VOID` : row.title,
    row.connections,
    rounded(figures.requestsPerSecond),
    media ? rounded(figures.bytesPerSecond / 1e6) : NONE,
    rounded(figures.p50),
    rounded(figures.p99),
    media ? rounded(figures.firstByteP50) : NONE,
    rounded(figures.cpuPerRequest),
    media && row.size >= 1024 * 1024 ? rounded(figures.cpuPerMiB) : NONE,
    rounded(figures.idleMemory / 1e6),
    rounded(figures.peakMemory / 1e6),
    homeserver === undefined
      ? NONE
      : `${rounded(homeserver.requestsPerSecond)}/s, ${share(figures.requestsPerSecond, homeserver.requestsPerSecond)}${burst ? `, first byte ${rounded(homeserver.firstByteP50)} ms` : ""}`,
    icap === undefined ? NONE : `${rounded(icap)}/s, ${share(figures.requestsPerSecond, icap)}`,
    [...(burst ? [`${rounded(figures.seconds)} s in all`] : []), factsText(facts)].filter(Boolean).join("; "),
  ];
}

function factCells({ row, facts }: FactOutcome): Cell[][] {
  return Object.entries(facts).map(([what, value], index) => [index === 0 ? row.title : "", what, rounded(value)]);
}

/** Columns in which nothing stands say nothing. */
function withoutEmpty(heading: readonly string[], rows: readonly Cell[][]): { heading: readonly string[]; rows: Cell[][] } {
  const used = heading.map((_title, column) => rows.some((row) => row[column] !== NONE && row[column] !== ""));
  const kept = <T>(cells: readonly T[]): T[] => cells.filter((_cell, column) => used[column]);
  return { heading: kept(heading), rows: rows.map(kept) };
}

function complaints(outcomes: readonly Outcome[]): string[] {
  return outcomes.filter(isFailure).map((outcome) => `${outcome.row.name}: ${complaint(outcome)}`);
}

function complaint(outcome: Outcome): string {
  if ("failure" in outcome) return `FAILED: ${outcome.failure}`;
  if ("errors" in outcome && outcome.errors === 0) return "NOTHING WAS ANSWERED in the time of a run: --seconds gives it more";
  return "errors" in outcome ? `${outcome.errors} ERRORS, its figures are void: ${outcome.examples.join("; ")}` : "";
}

function factsText(facts: Readonly<Record<string, number>>): string {
  return Object.entries(facts)
    .map(([what, value]) => `${what}: ${rounded(value)}`)
    .join("; ");
}

function share(part: number, whole: number): string {
  return `${Math.round((part / whole) * 100)} %`;
}

/** Three digits that count. */
export function rounded(value: number): Cell {
  if (!Number.isFinite(value)) return NONE;
  return Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3));
}
