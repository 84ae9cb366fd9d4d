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

/**
 * What is about media paths and uploads, as far as they go to the gateway: one text of the document, or none. Tests that ask for several get them in this order.
 * @throws Error when the document has not exactly one of it
 */
export async function mediaPart(language: string, marks: readonly MediaMark[]): Promise<string> {
  return (await Promise.all(marks.map((mark) => blockOf(language, MARKS[mark])))).join("");
}

/** The texts: for unmodified clients, whose uploads nobody scans; for both; for uploads alone. */
export type MediaMark = "unmodified" | "both" | "uploads";

const MARKS: Readonly<Record<MediaMark, string>> = {
  unmodified: "# All other media paths: the gateway",
  both: "# All media paths, uploads too",
  uploads: "# Uploads alone",
};

/** Which of them it takes. */
export function marksOf(mediaPaths: MediaPaths, scansUploads: boolean): readonly MediaMark[] {
  if (mediaPaths === "gateway") return [scansUploads ? "both" : "unmodified"];
  return scansUploads ? ["uploads"] : [];
}

/** With other texts between the two comments; "unmodified" is what stands there. @throws Error when it is not marked */
export async function withMediaPart(language: string, text: string, marks: readonly MediaMark[]): Promise<string> {
  const [marked, there = ""] = /^\s*# Unmodified clients, from here\n(.*?)^\s*# to here\n/ms.exec(text) ?? [];
  if (marked === undefined) throw new Error("the part for unmodified clients is not marked");
  const parts = await Promise.all(marks.map(async (mark) => (mark === "unmodified" ? there : blockOf(language, MARKS[mark]))));
  return text.replace(marked, () => parts.join(""));
}
