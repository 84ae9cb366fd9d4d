/** The configurations that docs/deployment.md gives to operators: tests run these very texts, only names and ports replaced. */
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const DEPLOYMENT = fileURLToPath(new URL("../../docs/deployment.md", import.meta.url));
/** The test certificate's folder. */
export const TLS = fileURLToPath(new URL("../fixtures/tls/", import.meta.url));

/** Where a reverse proxy sends requests to: http URLs without a path. */
export interface Upstreams {
  readonly gateway: string;
  readonly synapse: string;
  /** Whether the gateway gets uploads as well. */
  readonly scansUploads?: boolean;
}

/** What becomes of the homeserver's own media paths. */
export type MediaPaths = "synapse" | "gateway" | "refused";

/** The one block of this language that holds this text. @throws Error when the document has none, or two */
export async function blockOf(language: string, text: string): Promise<string> {
  const blocks = [...(await readFile(DEPLOYMENT, "utf8")).matchAll(/^```(\w+)\n(.*?)^```$/gms)];
  const [block, second] = blocks.filter(([, of, content = ""]) => of === language && content.includes(text));
  if (block?.[2] === undefined || second !== undefined) throw new Error(`docs/deployment.md has not one block of ${language} with ${text}`);
  return block[2];
}

/** @throws Error when what is to be replaced is not there as often as it should be */
export function replaced(text: string, replacements: readonly (readonly [from: string, to: string, times?: number])[]): string {
  return replacements.reduce((result, [from, to, times = 1]) => {
    const parts = result.split(from);
    if (parts.length !== times + 1) throw new Error(`the configuration has \`${from.trim()}\` ${parts.length - 1} times, not ${times}`);
    return parts.join(to);
  }, text);
}

/** What sends uploads to the gateway, to stand in front of all that is about media. */
export function uploadsBlock(language: string): Promise<string> {
  return blockOf(language, "# Uploads, to the gateway");
}

/** Without what is for unmodified clients. @throws Error when it is not marked */
export function withoutUnmodifiedClients(text: string): string {
  const without = text.replace(/^\s*# Unmodified clients, from here\n.*?^\s*# to here\n/ms, "");
  if (without === text) throw new Error("the part for unmodified clients is not marked");
  return without;
}
