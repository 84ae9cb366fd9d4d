/** `npm run bench -- …` */
import { parseArgs } from "node:util";
import type { Group, Row } from "./row.ts";

export const USAGE = `npm run bench -- [options]

  --only NAME[,NAME]     these rows or groups of rows
  --list                 shows them, and measures nothing
  --runs N               of each row; medians are shown (3)
  --seconds N            of each run (4)
  --warm-up N            seconds of the same load before that (10)
  --json, --markdown     in place of a table for the terminal
  --profile DIRECTORY    writes a CPU profile of each gateway there
  --base-url URL         measures what answers there in place of the gateway
  --pid PID              of that, for CPU time and memory with all that it starts
  --homeserver-port PORT where the homeserver of the benchmark listens, for that to ask (any that is free)
`;

export interface CommandLine {
  readonly only: readonly string[] | undefined;
  readonly list: boolean;
  readonly runs: number;
  readonly seconds: number;
  /** Seconds. */
  readonly warmUp: number;
  readonly format: "text" | "json" | "markdown";
  readonly profile: string | undefined;
  /** Without a slash at its end. */
  readonly baseUrl: string | undefined;
  readonly pid: number | undefined;
  readonly homeserverPort: number;
}

export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** Runs a program. After a UsageError, it says how the program is used, and ends it with 2. */
export async function explaining(usage: string, program: () => Promise<void>): Promise<void> {
  try {
    await program();
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(`${error.message}\n\n${usage}`);
    process.exitCode = 2;
  }
}

/** @param basePath of the API, for a base URL that has no path. @throws UsageError */
export function parseCommandLine(args: readonly string[], basePath: string): CommandLine {
  const { values } = parsed(args);
  const baseUrl = values["base-url"] === undefined ? undefined : apiUrl(values["base-url"], basePath);
  if (values.json && values.markdown) throw new UsageError("--json and --markdown can't both be had");
  if (baseUrl === undefined && values.pid !== undefined) throw new UsageError("--pid is for --base-url");
  return {
    only: values.only === undefined ? undefined : namesIn(values.only),
    list: values.list,
    runs: numberOf(values.runs, "--runs", 1, 100),
    seconds: numberOf(values.seconds, "--seconds", 0.1, 3600, { fraction: true }),
    warmUp: numberOf(values["warm-up"], "--warm-up", 0, 3600, { fraction: true }),
    format: values.json ? "json" : values.markdown ? "markdown" : "text",
    profile: values.profile,
    baseUrl,
    pid: values.pid === undefined ? undefined : numberOf(values.pid, "--pid", 1, 2 ** 22),
    homeserverPort: numberOf(values["homeserver-port"], "--homeserver-port", 0, 65_535),
  };
}

/** The groups with those of their rows that are to be measured. @throws UsageError for a name that is none */
export function chosen(groups: readonly Group[], { only, baseUrl }: Pick<CommandLine, "only" | "baseUrl">): Group[] {
  const names = new Set(groups.flatMap((group) => [group.name, ...group.rows.map((row) => row.name)]));
  const unknown = only?.filter((name) => !names.has(name)) ?? [];
  if (unknown.length > 0)
    throw new UsageError(`there is no row or group ${unknown.join(", ")}; npm run bench -- --list shows those that there are`);
  return groups
    .map((group) => ({ ...group, rows: group.rows.filter((row) => isWanted(group, row, only) && (baseUrl === undefined || isFree(row))) }))
    .filter(({ rows }) => rows.length > 0);
}

function isWanted(group: Group, row: Row, only: readonly string[] | undefined): boolean {
  return only === undefined ? group.onlyIfAsked !== true : only.includes(group.name) || only.includes(row.name);
}

/** Needs no gateway that was started for it. */
function isFree(row: Row): boolean {
  return !("measure" in row) && row.gateway === undefined;
}

function parsed(args: readonly string[]) {
  return orUsageError(() =>
    parseArgs({
      args: [...args],
      options: {
        only: { type: "string" },
        list: { type: "boolean", default: false },
        runs: { type: "string", default: "3" },
        seconds: { type: "string", default: "4" },
        "warm-up": { type: "string", default: "10" },
        json: { type: "boolean", default: false },
        markdown: { type: "boolean", default: false },
        profile: { type: "string" },
        "base-url": { type: "string" },
        pid: { type: "string" },
        "homeserver-port": { type: "string", default: "0" },
      },
    }),
  );
}

/** @throws UsageError for whatever `parse` throws */
export function orUsageError<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

/** The names in a list with commas. */
export function namesIn(list: string): string[] {
  return list.split(",").filter((name) => name !== "");
}

/** @param what it is called. @throws UsageError */
export function numberOf(text: string, what: string, least: number, most: number, { fraction = false } = {}): number {
  const number = /^\d+(?:\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  if (number >= least && number <= most && (fraction || Number.isInteger(number))) return number;
  throw new UsageError(`${what} must be ${fraction ? "a number" : "a whole number"} from ${least} to ${most}`);
}

function apiUrl(text: string, basePath: string): string {
  const url = URL.parse(text);
  if (url?.protocol !== "http:") throw new UsageError("--base-url must be an http:// URL");
  const path = url.pathname.replace(/\/+$/, "");
  return `${url.origin}${path === "" ? basePath : path}`;
}
