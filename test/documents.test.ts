import { existsSync } from "node:fs";
import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { parse, stringify } from "yaml";
import { loadConfig } from "../src/config/load.ts";
import { type ErrorCode, GatewayError } from "../src/errors.ts";

const ROOT = join(import.meta.dirname, "..");

/** All of them: the compiler sees to it. */
const CODES: Record<ErrorCode, true> = {
  bad_request: true,
  malformed_request: true,
  request_too_large: true,
  bad_media_id: true,
  bad_parameter: true,
  bad_decryption: true,
  failed_to_decrypt: true,
  missing_token: true,
  unknown_token: true,
  not_found: true,
  not_yet_uploaded: true,
  homeserver_failed: true,
  infected: true,
  blocked: true,
  modified: true,
  unscannable: true,
  too_large: true,
  upload_too_large: true,
  upload_too_slow: true,
  type_forbidden: true,
  opaque: true,
  scanner_unavailable: true,
  unclear_verdict: true,
  beyond_proof: true,
  still_scanning: true,
  no_room: true,
  shutting_down: true,
  rate_limited: true,
  unrecognized_route: true,
  method_not_allowed: true,
  client_gone: true,
  internal: true,
};

describe("docs/errors.md", () => {
  it("has each error as clients get it", async () => {
    const text = await readFile(join(ROOT, "docs/errors.md"), "utf8");
    const rows = text.split("\n").filter((line) => line.startsWith("| `"));
    const documented = rows.map((row) =>
      row
        .split("|")
        .slice(1, 7)
        .map((cell) => cell.trim()),
    );
    expect(documented).toEqual(Object.keys(CODES).map((code) => rowOf(new GatewayError(code as ErrorCode))));
  });
});

function rowOf(error: GatewayError): string[] {
  const { code, status, headers } = error;
  const body = error.body("scanner");
  const form = !("reason" in body) ? "matrix" : "errcode" in body ? "both" : "scanner";
  const cells = [code, status, form, body["errcode"] ?? body["reason"], error.body("matrix")["errcode"]].map(String);
  return [...cells.map((cell, at) => (at === 1 || at === 2 ? cell : `\`${cell}\``)), headers["retry-after"] ?? "–"];
}

describe("docs/deployment.md", () => {
  it("has configurations that work, the whole one with nothing to warn of", async () => {
    const text = await readFile(join(ROOT, "docs/deployment.md"), "utf8");
    const [whole = "", ...parts] = [...text.matchAll(/^```yaml\n(.*?)^```/gms)].map(([, yaml = ""]) => yaml);
    expect(parts).not.toEqual([]);
    expect((await loaded(whole)).warnings).toEqual([]);
    const { icap, download } = parse(whole) as Record<string, unknown>;
    // What a part does not show is as it is in the whole.
    for (const part of parts) await loaded(stringify({ icap, download, ...(parse(part) as Record<string, unknown>) }));
  });
});

async function loaded(yaml: string): ReturnType<typeof loadConfig> {
  const directory = await mkdtemp(join(tmpdir(), "documents-test-"));
  try {
    await writeFile(join(directory, "config.yaml"), yaml);
    return await loadConfig(join(directory, "config.yaml"));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

describe("the documents", () => {
  it("link to files and headings that are there", async () => {
    const names = [...(await readdir(ROOT)), ...(await readdir(join(ROOT, "docs"))).map((name) => `docs/${name}`)];
    const documents = names.filter((name) => name.endsWith(".md"));
    expect(documents).toContain("README.md");
    const texts = new Map(await Promise.all(documents.map(async (name) => [name, await readFile(join(ROOT, name), "utf8")] as const)));
    const broken: string[] = [];
    for (const [document, text] of texts) {
      for (const [, target = "", anchor] of text.matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)/g)) {
        const path = target === "" ? document : join(dirname(document), target);
        const headings = texts.get(path);
        if (!existsSync(join(ROOT, path))) broken.push(`${document}: ${target}`);
        else if (anchor !== undefined && headings !== undefined && !anchorsIn(headings).has(anchor))
          broken.push(`${document}: ${target}#${anchor}`);
      }
    }
    expect(broken).toEqual([]);
  });
});

/** Of its headings, as GitHub makes them. */
function anchorsIn(text: string): ReadonlySet<string> {
  const headings = text.replaceAll(/^```.*?^```/gms, "").matchAll(/^#+ (.*)$/gm);
  return new Set(
    [...headings].map(([, heading = ""]) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
        .replaceAll(" ", "-"),
    ),
  );
}
