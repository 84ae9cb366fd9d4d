import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { appendFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { stringify } from "yaml";
import { signatureService } from "../../icap/index.ts";
import { EICAR } from "../../src/scan/canary-samples.ts";
import { cells, icap, jsonLines } from "./run.ts";
import { CLEAN, type Services, UNSCANNABLE, antivirus, answering, serve } from "./services.ts";

let directory: string;
let services: Services;
/** Of requests to `seen`. */
let seen: { authorization: string | undefined; line: string | undefined; body: Buffer };
let stalled = Promise.withResolvers<void>();
const file = (name: string): string => join(directory, name);

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "mig-scan-"));
  await writeFile(file("clean.txt"), "Nothing here.\n");
  await writeFile(file("infected.com"), EICAR);
  await writeFile(file("empty"), "");
  await writeFile(file("growing.log"), "first line\n");
  await mkdir(file("folder"));
  execFileSync("mkfifo", [file("pipe")]);
  services = await serve({
    av: antivirus,
    unscannable: answering(UNSCANNABLE),
    broken: answering({ status: 500 }),
    seen: answering(({ headers, httpRequest }, body) => {
      seen = { authorization: headers.get("proxy-authorization"), line: httpRequest?.startLine, body };
      return CLEAN;
    }),
    changing: answering(async () => {
      await appendFile(file("growing.log"), "another line\n");
      return CLEAN;
    }),
    stalling: answering(({ signal }) => {
      stalled.resolve();
      return new Promise((_, reject) => {
        signal.addEventListener("abort", () => reject(new Error("gone")));
      });
    }),
    replacing: answering({ status: 200, http: { startLine: "HTTP/1.1 200 OK", fields: [], body: Buffer.from("other") } }),
  });
});
afterAll(async () => {
  await services[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
});

describe("icap scan", () => {
  it("ends with 0 when every file is clean, an empty one too", async () => {
    const { code, stdout, stderr } = await icap(["scan", services.url("av"), file("clean.txt"), file("empty")]);

    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(cells(stdout)).toEqual([
      ["FILE", "SIZE", "VERDICT", "TIME", "THREAT OR REASON"],
      [file("clean.txt"), "14 B", "clean", expect.stringMatching(/ m?s$/)],
      [file("empty"), "0 B", "clean", expect.stringMatching(/ m?s$/)],
    ]);
  });

  it("ends with 1 when any is infected, whatever else went wrong", async () => {
    const files = ["missing", "infected.com", "clean.txt", "folder", "pipe"].map(file);
    const { code, stdout, stderr } = await icap(["scan", services.url("av"), ...files]);

    expect({ code, stderr }).toEqual({ code: 1, stderr: "" });
    expect(
      cells(stdout)
        .slice(1)
        .map(([name, size, verdict, , threat]) => [name, size, verdict, threat]),
    ).toEqual([
      [file("missing"), "–", "error", "is not there"],
      [file("infected.com"), "68 B", "infected", "EICAR"],
      [file("clean.txt"), "14 B", "clean", undefined],
      [file("folder"), "–", "error", "is a directory"],
      [file("pipe"), "–", "error", "is no regular file, so its size is not known beforehand"],
    ]);
  });

  it.each([
    ["missing", "av", { verdict: "error", code: "ENOENT" }],
    ["clean.txt", "unscannable", { verdict: "unscannable", why: "Encrypted archive" }],
    ["clean.txt", "broken", { verdict: "error", why: expect.stringContaining("500") }],
    ["clean.txt", "replacing", { verdict: "modified", why: expect.any(String) }],
    ["growing.log", "changing", { verdict: "error", code: "changed", why: "changed while it was read" }],
    ["clean.txt", "nowhere", { verdict: "error", code: "wrong_service" }],
  ])("ends with 2 when there is no verdict to rely on: %s, %s", async (name, service, expected) => {
    const { code, stdout } = await icap(["scan", services.url(service), file(name), "--json"]);

    expect(code).toBe(2);
    expect(jsonLines(stdout)).toEqual([expect.objectContaining({ file: file(name), ...expected })]);
  });

  it("sends every byte, and no name but the gateway's own", async () => {
    const bytes = Buffer.alloc(1_000_000, "0123456789abcdef");
    await writeFile(file("secret-name.bin"), bytes);
    await writeFile(file("password"), "pass word\n");
    const credentials = ["--user", "scanner", "--password-file", file("password")];

    const { code, stdout } = await icap(["scan", services.url("seen"), file("secret-name.bin"), ...credentials, "--json"]);

    expect(code).toBe(0);
    expect(jsonLines(stdout)).toMatchObject([{ verdict: "clean", size: bytes.length, tag: "tag-1" }]);
    expect(seen.body.equals(bytes)).toBe(true);
    expect(seen.line).toMatch(/\/media HTTP\/1\.1$/);
    expect(seen.authorization).toBe(`Basic ${Buffer.from("scanner:pass word").toString("base64")}`);
  });

  it("has as many files scanned at once as it is told to, and leaves none out", async () => {
    const names = Array.from({ length: 9 }, (_, index) => file(`job-${index}`));
    for (const [index, name] of names.entries()) await writeFile(name, index === 7 ? EICAR : `number ${index}`);

    const { code, stdout } = await icap(["scan", services.url("av"), ...names, "--jobs", "4", "--json"]);

    expect(code).toBe(1);
    const results = jsonLines(stdout) as { file: string; verdict: string }[];
    expect(results.map(({ file: name }) => name).toSorted()).toEqual(names);
    expect(results.filter(({ verdict }) => verdict !== "clean")).toMatchObject([{ file: file("job-7"), verdict: "infected" }]);
  });

  it.each([[[]], [["--json"]]])("writes out what a terminal would obey %j", async (options) => {
    const name = file("a\u001b[31m\u009b2J\u202eb");
    await writeFile(name, "clean");

    const { code, stdout } = await icap(["scan", services.url("av"), name, ...options]);

    expect(code).toBe(0);
    // oxlint-disable-next-line no-control-regex -- these are the very characters that must not be there
    expect(stdout).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/);
    if (options.length > 0) expect(jsonLines(stdout)).toMatchObject([{ file: name }]);
    else expect(stdout).toContain("a\\u{1b}[31m\\u{9b}2J\\u{202e}b");
  });

  it("does not wait longer for one file than it is told to", async () => {
    const { code, stdout } = await icap(["scan", services.url("stalling"), file("clean.txt"), "--timeout", "300ms", "--json"]);

    expect(code).toBe(2);
    expect(jsonLines(stdout)).toMatchObject([{ verdict: "error", code: "timeout" }]);
  });

  it("ends by the signal that interrupts it, without another word on the file", async () => {
    stalled = Promise.withResolvers();
    const ended = icap(["scan", services.url("stalling"), file("clean.txt")], (child) => {
      void stalled.promise.then(() => child.kill("SIGINT"));
    });

    expect(await ended).toMatchObject({ code: null, signal: "SIGINT", stderr: "interrupted\n" });
    expect((await ended).stdout).not.toContain("clean.txt");
  });

  it("ends when nobody reads what it writes", async () => {
    const names = Array.from({ length: 1000 }, () => file("clean.txt"));
    let heading: Promise<unknown> | undefined;
    const { code, signal, stderr } = await icap(["scan", services.url("av"), ...names], (child) => {
      heading = child.stdout === null ? undefined : once(child.stdout, "data").then(() => child.stdout?.destroy());
    });

    await heading;
    expect({ code, signal, stderr }).toEqual({ code: 2, signal: null, stderr: "" });
  });

  it("does not believe a c-icap whose ISTag shows that it has no engine, unless that catches EICAR all the same", async () => {
    const table = { isTag: "CI0001-1B2M2Y8AsgTpgAmY7PhCfgAA" };
    await using cIcap = await serve({
      blind: answering(CLEAN, table),
      seeing: signatureService({ signatures: [{ threat: "EICAR", contains: EICAR }], table }),
    });

    const blind = await icap(["scan", cIcap.url("blind"), file("clean.txt"), "--json"]);
    const seeing = await icap(["scan", cIcap.url("seeing"), file("clean.txt")]);

    expect([blind.code, seeing.code]).toEqual([2, 0]);
    expect(jsonLines(blind.stdout)).toMatchObject([{ verdict: "error", code: "no_engine" }]);
  });
});

async function configure(service: object): Promise<string> {
  const path = file("config.yaml");
  await writeFile(path, stringify({ icap: [{ name: "av", ...service }] }));
  return path;
}

describe("a service of the gateway's configuration", () => {
  it("is asked with its own options, the first of its replicas that answers", async () => {
    await using blocking = await serve({ dlp: answering({ status: 204, fields: [["X-Our-Verdict", "blocked"]] }) });
    const config = await configure({ urls: ["icap://127.0.0.1:1/dlp", blocking.url("dlp")], blocked_headers: ["X-Our-Verdict"] });

    const { code, stdout } = await icap(["scan", "-c", config, "--service", "av", file("clean.txt"), "--json"]);

    expect(code).toBe(1);
    expect(jsonLines(stdout)).toMatchObject([{ file: file("clean.txt"), verdict: "infected" }]);
  });

  it.each([
    [["--service", "other"], /has no ICAP service other, but av/],
    [["--service", "av", "--profile", "eset"], /--profile can't stand beside --service/],
    [[], /-c FILE and --service NAME go together/],
  ])("must be there, and is described nowhere else: %j", async (args, message) => {
    const config = await configure({ urls: [services.url("av")] });

    const { code, stdout, stderr } = await icap(["scan", "-c", config, ...args, file("clean.txt")]);

    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(message);
  });

  it("of a configuration that is wrong is not asked", async () => {
    const config = await configure({ urls: ["nonsense"] });

    const { code, stderr } = await icap(["scan", "-c", config, "--service", "av", file("clean.txt")]);

    expect(code).toBe(2);
    expect(stderr).toMatch(/config\.yaml:\d+:\d+: icap\[0\]\.urls\[0\]: /);
  });
});
