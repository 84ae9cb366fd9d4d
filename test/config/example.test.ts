import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse } from "yaml";
import * as z from "zod";
import { describe, expect, it } from "vitest";
import { loadConfig } from "../../src/config/load.ts";
import { schema } from "../../src/config/schema.ts";

const EXAMPLE = new URL("../../config.example.yaml", import.meta.url).pathname;

/** `scan.spool.memory`, `icap[].name` … */
function keysOfValue(value: unknown, path = ""): string[] {
  if (Array.isArray(value)) return value.flatMap((item: unknown) => keysOfValue(item, `${path}[]`));
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => [`${path}.${key}`, ...keysOfValue(inner, `${path}.${key}`)]);
}

function keysOfSchema(json: z.core.JSONSchema.BaseSchema, path = ""): string[] {
  if (typeof json.items === "object" && !Array.isArray(json.items)) return keysOfSchema(json.items, `${path}[]`);
  return Object.entries(json.properties ?? {}).flatMap(([key, inner]) => [
    `${path}.${key}`,
    ...(typeof inner === "object" ? keysOfSchema(inner, `${path}.${key}`) : []),
  ]);
}

describe("config.example.yaml", () => {
  it("loads without a warning, and says what holds without it", async () => {
    const directory = await mkdtemp(join(tmpdir(), "mig-example-"));
    const bare = join(directory, "bare.yaml");
    const { config, warnings } = await loadConfig(EXAMPLE);
    await writeFile(bare, `icap: [{ name: antivirus, urls: ["${config.icap[0]?.urls[0]}"] }]`);

    expect(warnings).toEqual([]);
    expect(config).toEqual((await loadConfig(bare)).config);

    await rm(directory, { recursive: true });
  });

  it("has every key that there is, the optional ones behind a #", async () => {
    const text = await readFile(EXAMPLE, "utf8");
    const everything: unknown = parse(text.replaceAll(/^( *)#(?=[^ \n])/gm, "$1"));
    const known = keysOfSchema(z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }));

    expect(known.length).toBeGreaterThan(40);
    expect(keysOfValue(everything).toSorted()).toEqual(known.toSorted());
  });
});
