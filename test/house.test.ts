/** What must hold between parts that can't see each other. */
import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { icap } from "../src/config/icap-section.ts";
import { download } from "../src/config/sections.ts";
import { CANARY_KINDS } from "../src/scan/canary-samples.ts";
import { checkAdditionalHeaders, homeHeaders } from "../src/media/request-headers.ts";

const ROOT = join(import.meta.dirname, "..");

type Import = readonly [file: string, imported: string];

/** File names are made up where any file of the folder would do. */
const FORBIDDEN: readonly Import[] = [
  // icap/ is a library of its own, and its halves never meet.
  ["icap/verdict.ts", "../src/errors.ts"],
  ["icap/verdict.ts", "../quickstart/table.ts"],
  ["icap/verdict.ts", "../test/icap/support/scan.ts"],
  ["icap/verdict.ts", "./../src/errors.ts"],
  ["icap/verdict.ts", "undici"],
  ["icap/client/x.ts", "../../src/errors.ts"],
  ["icap/client/x.ts", "../../quickstart/table.ts"],
  ["icap/client/x.ts", "../codec/../../src/errors.ts"],
  ["icap/client/x.ts", "../server/server.ts"],
  ["icap/client/x.ts", "../index.ts"],
  ["icap/client/x.ts", "@scope/library"],
  ["icap/server/x.ts", "../../bench/stage.ts"],
  ["icap/server/x.ts", "../client/service.ts"],
  ["icap/server/x.ts", "../verdict.ts"],
  ["icap/codec/x.ts", "../client/service.ts"],
  ["icap/codec/x.ts", "../server/server.ts"],
  ["icap/codec/x.ts", "../verdict.ts"],
  ["icap/codec/x.ts", "node:net"],
  ["icap/elsewhere/x.ts", "../../src/errors.ts"],

  // Only scan/icap-*, config, command and gateway import icap, and only its door.
  ["src/scan/pipeline.ts", "../../icap/index.ts"],
  ["src/scan/pipeline.ts", "../../icap/verdict.ts"],
  ["src/scan/pipeline.ts", "../../icap/client/service.ts"],
  ["src/scan/deeper/x.ts", "../../../icap/index.ts"],
  ["src/scan/icap-scanner.ts", "../../icap/verdict.ts"],
  ["src/scan/icap-scanner.ts", "../../icap/client/service.ts"],
  ["src/gateway.ts", "../icap/verdict.ts"],
  ["src/gateway.ts", "../icap/codec/parser.ts"],
  ["src/main.ts", "../icap/index.ts"],
  ["src/http/x.ts", "../../icap/index.ts"],
  ["src/media/x.ts", "../../icap/index.ts"],
  ["src/crypto/x.ts", "../../icap/index.ts"],
  ["src/verdicts/x.ts", "../../icap/index.ts"],
  ["src/config/x.ts", "../../icap/profiles.ts"],
  ["src/command/x.ts", "../../icap/client/service.ts"],
  ["src/observability/x.ts", "../../icap/index.ts"],
  ["src/cluster/x.ts", "../../icap/index.ts"],
  ["src/primary.ts", "../icap/index.ts"],
  ["src/errors.ts", "../icap/index.ts"],

  // http/ never sees undici, ioredis or the verdict store; scan/ never sees Hono.
  ["src/http/x.ts", "undici"],
  ["src/http/x.ts", "ioredis"],
  ["src/http/x.ts", "../verdicts/store.ts"],
  ["src/http/x.ts", "../config/load.ts"],
  ["src/scan/x.ts", "hono"],
  ["src/scan/x.ts", "hono/utils/http-status"],
  ["src/scan/x.ts", "@hono/node-server"],
  ["src/scan/x.ts", "@hono/node-server/utils/response"],
  ["src/scan/icap-scanner.ts", "hono"],
  ["src/scan/icap-scanner.ts", "../http/app.ts"],
  ["src/scan/x.ts", "../http/app.ts"],
  ["src/scan/x.ts", "../config/load.ts"],

  // media, crypto and verdicts don't import each other, nor anything above them.
  ["src/media/x.ts", "../crypto/attachment.ts"],
  ["src/media/x.ts", "../verdicts/store.ts"],
  ["src/media/x.ts", "../scan/scanner.ts"],
  ["src/media/x.ts", "../http/app.ts"],
  ["src/media/x.ts", "../config/load.ts"],
  ["src/crypto/x.ts", "../media/mxc.ts"],
  ["src/crypto/x.ts", "../verdicts/store.ts"],
  ["src/crypto/x.ts", "../scan/scanner.ts"],
  ["src/verdicts/x.ts", "../media/mxc.ts"],
  ["src/verdicts/x.ts", "../crypto/attachment.ts"],
  ["src/verdicts/x.ts", "../scan/scanner.ts"],
  ["src/verdicts/x.ts", "../http/../scan/scanner.ts"],

  // cluster/ knows processes and what they keep; nobody knows it but those who start them.
  ["src/cluster/x.ts", "../http/app.ts"],
  ["src/cluster/x.ts", "../scan/pipeline.ts"],
  ["src/cluster/x.ts", "../media/mxc.ts"],
  ["src/cluster/x.ts", "../crypto/keys.ts"],
  ["src/cluster/x.ts", "hono"],
  ["src/cluster/x.ts", "ioredis"],
  ["src/primary.ts", "./scan/pipeline.ts"],
  ["src/primary.ts", "./worker.ts"],
  ["src/worker.ts", "./verdicts/memory.ts"],
  ["src/worker.ts", "./primary.ts"],
  ["src/gateway.ts", "./cluster/records.ts"],
  ["src/gateway.ts", "./worker.ts"],
  ["src/main.ts", "./cluster/crew.ts"],
  ...["http", "scan", "media", "crypto", "verdicts", "config", "observability", "command"].flatMap((room): Import[] => [
    [`src/${room}/z.ts`, "../cluster/records.ts"],
    [`src/${room}/z.ts`, "../primary.ts"],
    [`src/${room}/z.ts`, "../worker.ts"],
  ]),

  // What anything may import imports nothing of it.
  ["src/observability/x.ts", "../scan/request.ts"],
  ["src/observability/x.ts", "../media/source.ts"],
  ["src/observability/x.ts", "../config/load.ts"],
  ["src/config/x.ts", "../observability/log.ts"],
  ["src/config/x.ts", "../media/request-headers.ts"],
  ["src/errors.ts", "./config/load.ts"],
  ["src/errors.ts", "./observability/log.ts"],
  ["src/errors.ts", "pino"],

  // Nothing imports main or gateway; nothing that ships imports what does not.
  ["src/main.ts", "./scan/pipeline.ts"],
  ["src/main.ts", "./http/app.ts"],
  ["src/gateway.ts", "./main.ts"],
  ["src/gateway.ts", "./command/scan.ts"],
  ["src/command/x.ts", "../gateway.ts"],
  ["src/command/x.ts", "../main.ts"],
  ["src/command/x.ts", "../http/app.ts"],
  ["src/command/x.ts", "../verdicts/store.ts"],
  ["src/command/x.ts", "../media/mxc.ts"],
  ["src/command/x.ts", "../../quickstart/table.ts"],
  ...["http", "scan", "media", "crypto", "verdicts", "cluster", "config", "observability"].flatMap((room): Import[] => [
    [`src/${room}/y.ts`, "../gateway.ts"],
    [`src/${room}/y.ts`, "../main.ts"],
    [`src/${room}/y.ts`, "../command/scan.ts"],
    [`src/${room}/y.ts`, "../../test/support/harness.ts"],
    [`src/${room}/y.ts`, "../../quickstart/table.ts"],
    [`src/${room}/y.ts`, "../../bench/stage.ts"],
    [`src/${room}/y.ts`, "../../tools/test.ts"],
  ]),
  ["src/main.ts", "../quickstart/table.ts"],
  ["src/gateway.ts", "../test/support/harness.ts"],
];

const ALLOWED: readonly Import[] = [
  ["icap/index.ts", "./client/client.ts"],
  ["icap/verdict.ts", "./codec/headers.ts"],
  ["icap/client/x.ts", "../codec/parser.ts"],
  ["icap/client/x.ts", "../verdict.ts"],
  ["icap/client/x.ts", "node:net"],
  ["icap/server/x.ts", "../codec/parser.ts"],
  ["icap/codec/x.ts", "./headers.ts"],
  ["src/scan/icap-scanner.ts", "../../icap/index.ts"],
  ["src/scan/icap-replica.ts", "../../icap/index.ts"],
  ["src/scan/icap-scanner.ts", "./scanner.ts"],
  ["src/config/x.ts", "../../icap/index.ts"],
  ["src/command/x.ts", "../../icap/index.ts"],
  ["src/command/x.ts", "../scan/canary-samples.ts"],
  ["src/command/x.ts", "../config/load.ts"],
  ["src/main.ts", "./command/scan.ts"],
  ["src/gateway.ts", "../icap/index.ts"],
  ["src/gateway.ts", "./scan/icap-scanner.ts"],
  ["src/gateway.ts", "./verdicts/shared-verdicts.ts"],
  ["src/main.ts", "./gateway.ts"],
  ["src/main.ts", "./primary.ts"],
  ["src/main.ts", "./worker.ts"],
  ["src/worker.ts", "./gateway.ts"],
  ["src/worker.ts", "./cluster/records.ts"],
  ["src/primary.ts", "./cluster/crew.ts"],
  ["src/primary.ts", "./http/admin.ts"],
  ["src/cluster/x.ts", "../verdicts/records.ts"],
  ["src/cluster/x.ts", "../config/load.ts"],
  ["src/main.ts", "./config/load.ts"],
  ["src/main.ts", "./observability/log.ts"],
  ["src/http/x.ts", "../scan/request.ts"],
  ["src/http/x.ts", "../media/mxc.ts"],
  ["src/http/x.ts", "../crypto/keys.ts"],
  ["src/http/x.ts", "@hono/node-server"],
  ["src/scan/x.ts", "../media/source.ts"],
  ["src/scan/x.ts", "../crypto/attachment.ts"],
  ["src/scan/x.ts", "../verdicts/store.ts"],
  ["src/scan/deeper/x.ts", "../../verdicts/store.ts"],
  ["src/scan/x.ts", "./icap-scanner.ts"],
  ["src/media/x.ts", "undici"],
  ["src/media/x.ts", "./mime-worker.ts"],
  ["src/verdicts/x.ts", "ioredis"],
  ...["http", "scan", "media", "crypto", "verdicts"].flatMap((room): Import[] => [
    [`src/${room}/y.ts`, "../errors.ts"],
    [`src/${room}/y.ts`, "../observability/metrics.ts"],
  ]),
  ["src/observability/x.ts", "../errors.ts"],
  ["quickstart/x.ts", "../src/gateway.ts"],
  ["test/x.test.ts", "../src/gateway.ts"],
  ["test/x.test.ts", "../icap/client/service.ts"],
  ["bench/x.ts", "../test/support/fake-homeserver.ts"],
];

describe("who may import whom", () => {
  it.each([
    ["values", (imported: string, line: number) => `import { x as x${line} } from "${imported}"; console.log(x${line});`],
    ["types", (imported: string, line: number) => `import type { X as X${line} } from "${imported}"; export type { X${line} };`],
    ["what is imported later", (imported: string) => `await import("${imported}");`],
    ["what is exported again", (imported: string) => `export * from "${imported}";`],
  ])("is kept by the linter, for %s", async (_, written) => {
    const refused = await lint([...FORBIDDEN, ...ALLOWED], written);
    expect([...refused].toSorted()).toEqual(FORBIDDEN.map(([file, imported]) => `${file} → ${imported}`).toSorted());
  });
});

/** Those imports that the linter refuses. All that one file imports stands in it line by line. */
async function lint(imports: readonly Import[], written: (imported: string, line: number) => string): Promise<Set<string>> {
  const directory = await mkdtemp(join(tmpdir(), "mig-house-"));
  try {
    const files = Map.groupBy(imports, ([file]) => file);
    for (const [file, all] of files) {
      await mkdir(join(directory, dirname(file)), { recursive: true });
      await writeFile(join(directory, file), all.map(([, imported], index) => written(imported, index)).join("\n"));
    }
    // The import rules are all in there; rules that need types would need the whole project.
    const { overrides } = JSON.parse(await readFile(join(ROOT, ".oxlintrc.json"), "utf8")) as { overrides: unknown };
    await writeFile(join(directory, ".oxlintrc.json"), JSON.stringify({ overrides }));
    const oxlint = join(ROOT, "node_modules/oxlint/bin/oxlint");
    const { stdout } = spawnSync(process.execPath, [oxlint, "--format=json", "."], { cwd: directory, encoding: "utf8" });
    const { diagnostics } = JSON.parse(stdout) as { diagnostics: readonly Diagnostic[] };
    const refused = diagnostics.filter(({ code }) => code === "eslint(no-restricted-imports)");
    return new Set(refused.map(({ filename, labels }) => `${filename} → ${files.get(filename)?.[(labels[0]?.span.line ?? 0) - 1]?.[1]}`));
  } finally {
    await rm(directory, { recursive: true });
  }
}

interface Diagnostic {
  readonly code: string;
  readonly filename: string;
  readonly labels: readonly { readonly span: { readonly line: number } }[];
}

describe("canaries", () => {
  it("that are there may be asked for, and no others", async () => {
    for (const canary of [...CANARY_KINDS, "rar"]) {
      const { success } = icap.safeParse([{ name: "av", urls: ["icap://127.0.0.1/x"], canary: [canary] }]);
      expect(success, canary).toBe(canary !== "rar");
    }
  });
});

describe("headers that nobody may set on a request for media", () => {
  const REFUSED = ["connection", "content-type", "content-md5", "Expect", "if-none-match", "if-anything", "proxy-authorization", "proxy-x"];
  const MORE = ["accept-encoding", "http2-settings", "Keep-Alive", "range", "te", "trailer", "transfer-encoding", "upgrade"];
  const ACCEPTED = ["user-agent", "host", "x-forwarded-for", "cookie", "accept", "content", "ifs", "x-range", "tea", "ranges"];

  it.each([...REFUSED, ...MORE, ...ACCEPTED])("%s: the configuration and the requests themselves agree", (name) => {
    const accepted = ACCEPTED.includes(name);
    expect(download.safeParse({ additional_headers: { [name]: "x" } }).success).toBe(accepted);
    expect(download.safeParse({ headers_to_forward: [name] }).success).toBe(accepted);
    if (accepted) expect(checkAdditionalHeaders({ [name]: "x" })).toEqual({ [name]: "x" });
    else expect(() => checkAdditionalHeaders({ [name]: "x" })).toThrow(TypeError);
    expect(homeHeaders({ authorization: undefined, forwarded: { [name]: "x" } }, undefined, {})).toEqual(
      accepted ? { [name.toLowerCase()]: "x" } : {},
    );
  });

  it("Authorization goes its own way alone", () => {
    expect(download.safeParse({ additional_headers: { Authorization: "x" } }).success).toBe(false);
    expect(() => checkAdditionalHeaders({ Authorization: "x" })).toThrow(TypeError);
    expect(download.parse({ headers_to_forward: ["Authorization"] })).toMatchObject({ headers_to_forward: [] });
    expect(homeHeaders({ authorization: undefined, forwarded: { Authorization: "x" } }, undefined, {})).toEqual({});
  });
});
