import { readFile } from "node:fs/promises";

/**
 * A configuration of lines `Name value`, as ClamAV and c-icap have it, with these settings in place of its own; undefined takes one out.
 * Those it doesn't have are added at the end.
 */
export async function withSettings(path: string, settings: Readonly<Record<string, string | undefined>>): Promise<string> {
  const lines = (await readFile(path, "utf8")).split("\n").filter((line) => !(settingName(line) in settings));
  const added = Object.entries(settings).flatMap(([name, value]) => (value === undefined ? [] : [`${name} ${value}`]));
  return `${[...lines, ...added].join("\n")}\n`;
}

function settingName(line: string): string {
  return /^\s*([\w.]+)/.exec(line)?.[1] ?? "";
}
