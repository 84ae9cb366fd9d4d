/** The words of a command line, and what is wrong with them. */
import { type ParseArgsOptionsConfig, parseArgs } from "node:util";
import { codeOf } from "../errors.ts";

/** The command line can't be understood; the message is one line. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** @throws UsageError for an option that is not among these, or lacks its value. */
export function parseCommandLine<const Options extends ParseArgsOptionsConfig>(args: readonly string[], options: Options) {
  try {
    return parseArgs({ args: [...args], allowPositionals: true, options });
  } catch (error) {
    if (!(error instanceof TypeError) || codeOf(error)?.startsWith("ERR_PARSE_ARGS") !== true) throw error;
    throw new UsageError(error.message.split(". ", 1)[0], { cause: error });
  }
}
