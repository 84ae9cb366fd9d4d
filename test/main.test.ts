import { type ChildProcess, spawn } from "node:child_process";
import { copyFile, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { stringify } from "yaml";
import { FakeHomeserver } from "./support/fake-homeserver.ts";

const MAIN = new URL("../src/main.ts", import.meta.url).pathname;
const BIN = new URL("../bin/matrix-icap-gateway.mjs", import.meta.url).pathname;
const FAKE_GATEWAY = new URL("fixtures/main/fake-gateway.ts", import.meta.url).href;

let directory: string;
let config: string;
const children: ChildProcess[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "mig-main-"));
  config = join(directory, "config.yaml");
  await writeFile(config, "icap: [{ name: av, urls: ['icap://127.0.0.1/x'] }]\n");
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await rm(directory, { recursive: true });
});

interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The program in a process of its own, with its output line by line. */
class Run {
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  readonly #waiting = new Set<() => void>();
  #stderr = "";
  readonly ended: Promise<Ended>;

  constructor(command: readonly string[], gateway = "") {
    const env = { HOME: directory, PATH: process.env["PATH"], FAKE_GATEWAY: gateway };
    this.#child = spawn(command[0] ?? "", command.slice(1), { env, stdio: ["ignore", "pipe", "pipe"] });
    children.push(this.#child);
    const { stdout, stderr } = this.#child;
    if (stdout === null || stderr === null) throw new Error("no pipes");
    createInterface(stdout).on("line", (line) => {
      this.#lines.push(line);
      for (const look of this.#waiting) look();
    });
    stderr.setEncoding("utf8").on("data", (text: string) => (this.#stderr += text));
    this.ended = new Promise((resolve, reject) => {
      this.#child.once("error", reject);
      this.#child.once("close", (code, signal) => resolve({ code, signal, stdout: this.#lines.join("\n"), stderr: this.#stderr }));
    });
  }

  /** The first line with this text. */
  line(text: string): Promise<string> {
    return new Promise((resolve) => {
      const look = (): void => {
        const found = this.#lines.find((line) => line.includes(text));
        if (found === undefined) return;
        this.#waiting.delete(look);
        resolve(found);
      };
      this.#waiting.add(look);
      look();
    });
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }
}

const main = (...args: string[]): Promise<Ended> => new Run([process.execPath, MAIN, ...args]).ended;
const start = (gateway: string): Run => new Run([process.execPath, "--import", FAKE_GATEWAY, MAIN, "-c", config], gateway);
const messages = ({ stdout }: Ended): unknown[] => stdout.split("\n").map((line) => (JSON.parse(line) as { msg: unknown }).msg);

describe("the command line", () => {
  it("--help and --version answer, and start nothing", async () => {
    const { version } = JSON.parse(await readFile(new URL("../package.json", import.meta.url), "utf8")) as { version: string };

    expect(await main("--version")).toMatchObject({ code: 0, stdout: version, stderr: "" });
    expect(await main("-h")).toMatchObject({ code: 0, stdout: expect.stringContaining("check-config -c FILE"), stderr: "" });
    expect(await main("icap", "-h")).toMatchObject({ code: 0, stdout: expect.stringContaining("icap scan URL FILE…"), stderr: "" });
  });

  it.each([
    [["frobnicate"], "matrix-icap-gateway: unknown words: frobnicate"],
    [["check-config", "config.yaml", "-c", "config.yaml"], "matrix-icap-gateway: unknown words: check-config config.yaml"],
    [["--frobnicate"], "matrix-icap-gateway: Unknown option '--frobnicate'"],
    [["-c"], "matrix-icap-gateway: Option '-c, --config <value>' argument missing"],
    [[], "matrix-icap-gateway: -c FILE is missing"],
    [["worker"], "matrix-icap-gateway: worker is no command for people: set web.workers in the configuration"],
  ])("%j is an error in one line, with exit status 2", async (args, message) => {
    expect(await main(...args)).toMatchObject({ code: 2, stdout: "", stderr: `${message} (--help shows what there is)\n` });
  });
});

describe("check-config", () => {
  it("says OK", async () => {
    expect(await main("check-config", "-c", config)).toMatchObject({ code: 0, stdout: `${config}: OK`, stderr: "" });
  });

  it("shows warnings, which are no errors", async () => {
    await writeFile(config, "icap: [{ name: av, urls: ['icap://192.0.2.1/x'] }]\n");

    const { code, stderr } = await main("check-config", "-c", config);

    expect(code).toBe(0);
    expect(stderr).toMatch(/^\S+config\.yaml:1:27: icap\[0\]\.urls\[0\]: .* \(warning\)\n$/);
  });

  it.each([["check-config"], [undefined]])("all problems end it with exit status 2, and so they end a start (%s)", async (command) => {
    await writeFile(config, "icap: []\nweb: { port: x }\n");

    const { code, stdout, stderr } = await main(...(command === undefined ? [] : [command]), "-c", config);

    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(
      new RegExp(`^${config}:1:7: icap: there is nothing .*\n${config}:2:14: web\\.port: must be a number, not a string\n$`),
    );
  });
});

describe("a running gateway", () => {
  it.each(["SIGTERM", "SIGINT"] as const)("ends on %s, when it has finished, with exit status 0", async (signal) => {
    const run = start("works,soon");
    await run.line("listening");

    run.signal(signal);
    const ended = await run.ended;

    expect(ended).toMatchObject({ code: 0, signal: null, stderr: "" });
    expect(messages(ended)).toEqual(["listening", "shutting down; requests that are under way may finish", "bye", "disposed"]);
  });

  it("takes signals that come together as one: Ctrl-C reaches it from the terminal and from npm", async () => {
    const run = start("works,soon");
    await run.line("listening");

    for (const signal of ["SIGINT", "SIGINT", "SIGTERM"] as const) run.signal(signal);

    expect(await run.ended).toMatchObject({ code: 0, signal: null });
  });

  it("ends at once on a second signal, with exit status 1", async () => {
    const run = start("works,never");
    await run.line("listening");

    run.signal("SIGTERM");
    await run.line("another signal ends it at once");
    run.signal("SIGTERM");

    expect(await run.ended).toMatchObject({ code: 1, signal: null });
  });

  it("does not wait for ever for its own end", async () => {
    const run = start("works,too_long");
    await run.line("listening");

    run.signal("SIGTERM");
    const ended = await run.ended;

    expect(ended).toMatchObject({ code: 1, signal: null });
    expect(messages(ended).at(-1)).toBe("the shutdown takes too long; ending at once");
  });

  it("that can't start says why in one line, and exits with 1", async () => {
    const ended = await start("fails").ended;

    expect(ended).toMatchObject({ code: 1, stderr: "" });
    expect(messages(ended)).toEqual(["the gateway can't start: listen EADDRINUSE: address already in use 127.0.0.1:8080"]);
    expect(ended.stdout).not.toContain("stack");
  });

  it("shows the stack of a failed start to those who debug", async () => {
    await writeFile(config, "icap: [{ name: av, urls: ['icap://127.0.0.1/x'] }]\nlog: { level: debug }\n");

    expect((await start("fails").ended).stdout).toContain('"stack"');
  });

  it("ends when something goes wrong that nobody handles, with exit status 1", async () => {
    const ended = await start("rejects").ended;

    expect(ended).toMatchObject({ code: 1, stderr: "" });
    expect(messages(ended).at(-1)).toBe("unexpected failure; the gateway ends");
  });
});

describe("the gateway itself, as it is installed", () => {
  it("ends on SIGTERM with exit status 0 when the request under way has its answer", async () => {
    await using homeserver = await FakeHomeserver.start();
    homeserver.addToken("alice");
    const bytes = Buffer.alloc(1000, "media ");
    homeserver.put("abc", { bytes, behaviour: { drip: { bytes: 100, pause: 100 } } });
    const sections = {
      web: { port: 0 },
      admin: { port: 0 },
      scan: { script: "/bin/true", temp_directory: directory },
      download: { base_homeserver_url: homeserver.url },
      crypto: { request_secret_path: join(directory, "request_secret") },
    };
    await writeFile(config, stringify(sections));
    const run = new Run([process.execPath, BIN, "-c", config]);
    const { address } = JSON.parse(await run.line('"listening"')) as { address: { port: number } };

    const url = `http://127.0.0.1:${address.port}/_matrix/media_proxy/unstable/download/${homeserver.serverName}/abc`;
    const answer = fetch(url, { headers: { authorization: "Bearer alice" } });
    await expect.poll(() => homeserver.requests.length).toBe(1);
    run.signal("SIGTERM");

    const got = await answer;
    expect([got.status, Buffer.from(await got.arrayBuffer()).equals(bytes)]).toEqual([200, true]);
    const ended = await run.ended;
    expect(ended).toMatchObject({ code: 0, signal: null, stderr: "" });
    // A slow machine may be told in between that another signal would end it at once.
    const told = messages(ended).filter((message) => !String(message).startsWith("still at it"));
    expect(told.slice(-3)).toEqual(["shutting down; requests that are under way may finish", "request", "bye"]);
    expect((await readdir(directory)).filter((name) => ![".cache", "config.yaml", "request_secret"].includes(name))).toEqual([]);
  });
});

describe("the launcher", () => {
  const OLD_NODE = new URL("fixtures/main/old-node.mjs", import.meta.url).href;
  const NODE26 = new URL("../bin/node26.mjs", import.meta.url).href;

  it("runs the program in its own process when that is new enough", async () => {
    expect(await new Run([process.execPath, BIN, "check-config", "-c", config]).ended).toMatchObject({ code: 0, stdout: `${config}: OK` });
  });

  it("runs it under the Node that npm installed when its own is too old, and passes its exit status on", async () => {
    const old = [process.execPath, "--import", OLD_NODE, BIN, "check-config", "-c"];

    expect(await new Run([...old, config]).ended).toMatchObject({ code: 0, stdout: `${config}: OK`, stderr: "" });
    expect(await new Run([...old, "/nowhere"]).ended).toMatchObject({ code: 2, stderr: "/nowhere: is not there\n" });
  });

  it("starts Node with the flags that everything else does which starts the gateway", async () => {
    const starters = ["bin/node26.mjs", "bin/matrix-icap-gateway.mjs", "docker/gateway/Dockerfile", "package.json", "bench/release.ts"];
    const flags = await Promise.all(
      starters.map(async (file) => (await readFile(join(BIN, "../..", file), "utf8")).match(/--(?:min-semi-space|v8-pool)-size=\d+/g)),
    );
    expect(flags[0]).toHaveLength(2);
    expect(flags).toEqual(starters.map(() => flags[0]));
  });

  it.each([
    [
      "forwards signals",
      "process.on('SIGTERM', () => process.exit(7)); setInterval(() => {}, 1000); console.log('up', ...process.argv.slice(2));",
      { code: 7 },
    ],
    ["dies of what killed the program", "setInterval(() => {}, 1000); console.log('up a b');", { code: null, signal: "SIGTERM" }],
  ])("%s", async (_, program, end) => {
    const script = join(directory, "program.mjs");
    const launcher = join(directory, "launcher.mjs");
    await writeFile(script, program);
    await writeFile(launcher, `import { runUnderNode26 } from "${NODE26}"; await runUnderNode26(${JSON.stringify(script)}, ["a", "b"]);`);
    const run = new Run([process.execPath, "--import", OLD_NODE, launcher]);
    await run.line("up a b");

    run.signal("SIGTERM");

    expect(await run.ended).toMatchObject(end);
  });

  it("says which Node is needed where there is none", async () => {
    for (const name of ["matrix-icap-gateway.mjs", "node26.mjs"]) await copyFile(join(BIN, "..", name), join(directory, name));

    const { code, stderr } = await new Run([process.execPath, "--import", OLD_NODE, join(directory, "matrix-icap-gateway.mjs"), "--help"])
      .ended;

    expect(code).toBe(1);
    expect(stderr).toMatch(/^matrix-icap-gateway needs Node\.js 26 or later: .*Install it from https:\/\/nodejs\.org\/.*\n$/);
  });
});
