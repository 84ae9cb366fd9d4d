/** What is wrong with a configuration file, in words that name the key as the operator wrote it. Values are never quoted: some are secrets. */
import type * as z from "zod";

export interface Problem {
  /** The key, as in `icap[0].urls[0]`; empty when the file as a whole is meant. */
  readonly path: string;
  /** From 1; both are 0 when there is no place to point to. */
  readonly line: number;
  readonly column: number;
  readonly message: string;
}

/** The configuration can't be used. The message has one line for each problem. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  readonly problems: readonly Problem[];

  constructor(file: string, problems: readonly Problem[]) {
    super(problems.map((problem) => describe(file, problem)).join("\n"));
    this.problems = problems;
  }
}

/** `config.yaml:12:5: icap[0].urls[0]: must be …` */
export function describe(file: string, { path, line, column, message }: Problem): string {
  const place = line === 0 ? file : `${file}:${line}:${column}`;
  return path === "" ? `${place}: ${message}` : `${place}: ${path}: ${message}`;
}

export type Path = readonly (string | number)[];

export function formatPath(path: Path): string {
  return path.map((part, index) => (typeof part === "number" ? `[${part}]` : `${index === 0 ? "" : "."}${printable(part)}`)).join("");
}

/** The issue's own words, or ours for those of the schema library. */
export function wordsFor(issue: z.core.$ZodRawIssue): string | undefined {
  if (issue.code === "invalid_type") {
    const wanted = nameOf(issue.expected);
    return issue.input === undefined ? `is needed: ${wanted}` : `must be ${wanted}${notA(issue.input)}`;
  }
  if (issue.code === "invalid_value") return `must be one of ${issue.values.join(", ")}`;
  if (issue.code === "too_small") {
    return issue.origin === "array" ? `must have at least ${issue.minimum} of them` : `must be at least ${issue.minimum}`;
  }
  if (issue.code === "too_big") {
    return issue.origin === "string" ? `must not be longer than ${issue.maximum} characters` : `must not be more than ${issue.maximum}`;
  }
  return undefined;
}

interface Explanation {
  readonly path: Path;
  readonly message: string;
  /** Whether the key is wrong, or what stands there. */
  readonly at: "key" | "value";
}

/** Places and texts of one issue: each unknown key is a problem of its own. */
export function explain(issue: z.core.$ZodIssue, knownKeys: (path: Path) => readonly string[]): Explanation[] {
  const path = issue.path.filter((part) => typeof part !== "symbol");
  if (issue.code === "unrecognized_keys") {
    const known = knownKeys(path);
    return issue.keys.map((key) => ({ path: [...path, key], message: unknownKey(key, known), at: "key" as const }));
  }
  if (issue.code === "invalid_key") return issue.issues.map(({ message }) => ({ path, message, at: "key" as const }));
  return [{ path, message: issue.message, at: "value" }];
}

function unknownKey(key: string, known: readonly string[]): string {
  const [nearest] = known
    .map((name) => ({ name, distance: distance(plain(key), plain(name)) }))
    .filter(({ name, distance }) => distance <= Math.max(1, Math.floor(name.length / 4)))
    .sort((one, other) => one.distance - other.distance);
  return nearest === undefined ? "unknown key" : `unknown key; did you mean ${nearest.name}?`;
}

/** `tempDirectory`, `temp-directory` and `temp_directory` are the same word. */
function plain(key: string): string {
  return key
    .slice(0, 64)
    .toLowerCase()
    .replaceAll(/[^a-z0-9]/g, "");
}

/** Letters to add, drop, change or swap with their neighbour. */
function distance(one: string, other: string): number {
  const rows: number[][] = [];
  const at = (row: number, column: number): number => (row === 0 || column === 0 ? row + column : (rows[row]?.[column] ?? Infinity));
  for (let row = 1; row <= one.length; row += 1) {
    const current: number[] = (rows[row] = []);
    for (let column = 1; column <= other.length; column += 1) {
      const change = at(row - 1, column - 1) + (one[row - 1] === other[column - 1] ? 0 : 1);
      const swapped = row > 1 && column > 1 && one[row - 1] === other[column - 2] && one[row - 2] === other[column - 1];
      const swap = swapped ? at(row - 2, column - 2) + 1 : Infinity;
      current[column] = Math.min(change, swap, at(row - 1, column) + 1, at(row, column - 1) + 1);
    }
  }
  return at(one.length, other.length);
}

function nameOf(expected: string): string {
  switch (expected) {
    case "string":
      return "a string";
    case "number":
      return "a number";
    case "int":
      return "a whole number";
    case "array":
      return "a list";
    case "object":
    case "record":
      return "a section of keys";
    default:
      return expected;
  }
}

const NOT_A: Readonly<Record<string, string>> = {
  object: ", not a section of keys",
  string: ", not a string",
  boolean: ", not true or false",
};

function notA(value: unknown): string {
  if (value === null) return "; it is empty";
  return Array.isArray(value) ? ", not a list" : (NOT_A[typeof value] ?? "");
}

function printable(text: string): string {
  return text.slice(0, 64).replaceAll(/[^\x20-\x7e]/g, "?");
}
