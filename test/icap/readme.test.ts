import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { IcapServer, PROFILE_NAMES, signatureService } from "../../icap/index.ts";

const ROOT = join(import.meta.dirname, "../../icap");
const README = await readFile(join(ROOT, "README.md"), "utf8");

describe("the README's example", () => {
  it.each([
    ["a harmless file", "all is well", /^\{ outcome: 'clean', how: '204' \} 1$/],
    ["an infected one", "this is bad indeed", /^\{ outcome: 'infected', threat: 'Bad' \} 1$/],
  ])("runs, on %s", async (_, content, printed) => {
    await using server = new IcapServer({
      services: {
        virus_scan: signatureService({ signatures: [{ threat: "Bad", contains: Buffer.from("bad") }], table: { isTag: "1" } }),
      },
    });
    const { port } = await server.listen(0);
    const directory = await mkdtemp(join(tmpdir(), "icap-readme-"));
    try {
      const example = /```ts\n([^]*?)```/.exec(README)?.[1] ?? "";
      expect(example).toContain("127.0.0.1:1344");
      const runnable = example
        .replace("./icap/index.ts", pathToFileURL(join(ROOT, "index.ts")).href)
        .replace("127.0.0.1:1344", `127.0.0.1:${port}`);
      await writeFile(join(directory, "example.mts"), runnable);
      await writeFile(join(directory, "file.pdf"), content);
      const { stdout } = await promisify(execFile)(process.execPath, ["example.mts", "file.pdf"], { cwd: directory });
      expect(stdout.trim()).toMatch(printed);
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});

describe("the README", () => {
  it("names every profile and every code", async () => {
    const errors = await readFile(join(ROOT, "errors.ts"), "utf8");
    const codes = [...errors.matchAll(/^ {2}\| "([a-z_]+)"/gm)].map(([, code = ""]) => code);
    expect(codes).toContain("busy");
    for (const name of [...PROFILE_NAMES, ...codes]) expect(README).toContain(`\`${name}\``);
  });

  it("names every option of a service and every field of a request", async () => {
    const types = await readFile(join(ROOT, "client/types.ts"), "utf8");
    for (const name of ["IcapServiceOptions", "IcapTls", "IcapTimeouts", "IcapScanRequest"]) {
      const body = new RegExp(`interface ${name} \\{([^]*?)\n\\}`).exec(types)?.[1] ?? "";
      const members = [...body.matchAll(/^ {2}readonly (\w+)/gm)].map(([, member = ""]) => member);
      expect(members.length).toBeGreaterThan(3);
      for (const member of members) expect(README, `${name}.${member}`).toContain(`\`${member}\``);
    }
  });
});
