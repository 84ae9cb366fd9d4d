import { readFile } from "node:fs/promises";

/**
 * A configuration of lines `Name value`, as ClamAV and c-icap have it, with these settings in place of its own; undefined takes one out.
 * Those it doesn't have are added at the end.
 */
export async function withSettings(path: string, settings: Readonly<Record<string, string | undefined>>): Promise<string> {
  return replaceSettings(await readFile(path, "utf8"), settings, " ");
}

/** The same for lines that have `separator` between name and value. */
export function replaceSettings(text: string, settings: Readonly<Record<string, string | undefined>>, separator: string): string {
  const lines = text.split("\n").filter((line) => !(settingName(line) in settings));
  const added = Object.entries(settings).flatMap(([name, value]) => (value === undefined ? [] : [`${name}${separator}${value}`]));
  return `${[...lines, ...added].join("\n")}\n`;
}

function settingName(line: string): string {
  return /^\s*([\w.]+)/.exec(line)?.[1] ?? "";
}
