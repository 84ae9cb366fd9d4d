/** From a file to a configuration, or to everything that is wrong with it. */
import { availableParallelism, totalmem } from "node:os";
import * as z from "zod";
import { UnusableFileError, readTextFile } from "./files.ts";
import { ConfigError, type Path, type Problem, describe, explain, wordsFor } from "./problems.ts";
import { type Config, remarks, schema } from "./schema.ts";
import { readSecrets } from "./secrets.ts";
import { parseYaml } from "./yaml.ts";

export { ConfigError } from "./problems.ts";
export type { Config } from "./schema.ts";

/** Bytes of a configuration file; far more than anybody writes. */
const LARGEST_FILE = 256 * 1024;

/**
 * Reads and checks a configuration file, and the passwords and certificates that it names files for.
 * @param path as the operator gave it: messages begin with it
 * @returns the configuration, and what an operator should know although it works, each with its place
 * @throws ConfigError with all problems at once
 */
export async function loadConfig(path: string): Promise<{ config: Config; warnings: string[] }> {
  const yaml = parseYaml(await readConfigFile(path));
  const parsed = schema.safeParse(yaml.value ?? {}, { error: wordsFor });
  if (!parsed.success || yaml.problems.length > 0) {
    // Of a file that is no YAML, nothing else can be said.
    const issues = parsed.success || yaml.value === undefined ? [] : parsed.error.issues.flatMap((issue) => explain(issue, knownKeys));
    throw new ConfigError(path, inOrder([...yaml.problems, ...issues.map((issue) => yaml.problemAt(issue.path, issue.message, issue.at))]));
  }
  const { config, problems } = await readSecrets(parsed.data);
  if (problems.length > 0) throw new ConfigError(path, inOrder(problems.map((problem) => yaml.problemAt(problem.path, problem.message))));
  const warnings = remarks(config, { memory: memoryLimit(), processors: availableParallelism() }).map((remark) =>
    describe(path, yaml.problemAt(remark.path, remark.message)),
  );
  return { config, warnings };
}

async function readConfigFile(path: string): Promise<string> {
  try {
    return await readTextFile(path, LARGEST_FILE);
  } catch (error) {
    if (!(error instanceof UnusableFileError)) throw error;
    throw new ConfigError(path, [{ path: "", line: 0, column: 0, message: error.message }]);
  }
}

/** The keys that the schema knows at this place. */
function knownKeys(path: Path): readonly string[] {
  let here: JsonSchema | undefined = z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }) as JsonSchema;
  for (const part of path) here = typeof part === "number" ? here?.items : here?.properties?.[part];
  return Object.keys(here?.properties ?? {});
}

interface JsonSchema {
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly items?: JsonSchema;
}

function memoryLimit(): number {
  return Math.min(totalmem(), process.constrainedMemory() || Infinity);
}

function inOrder(problems: readonly Problem[]): Problem[] {
  return [...problems].sort((one, other) => one.line - other.line || one.column - other.column);
}
