import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ScanSubject } from "../../src/scan/scanner.ts";
import { ScriptScanner, type ScriptScannerOptions } from "../../src/scan/script-scanner.ts";

const never = new AbortController().signal;
const content = Buffer.from("decrypted media");

let root: string;
let temporary: string;
let scanners: ScriptScanner[];
let errors: string[];

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "script-test-"));
  temporary = join(root, "temporary");
  await mkdir(temporary);
  scanners = [];
  errors = [];
});

afterEach(async () => {
  await Promise.all(scanners.map((scanner) => scanner[Symbol.asyncDispose]()));
  await rm(root, { recursive: true, force: true });
});

/** Writes an executable script, and gives its path. Its notes go to the test's folder, at $ROOT. */
async function script(body: string, name = "scan.sh"): Promise<string> {
  const path = join(root, name);
  await writeFile(path, `#!/bin/bash\nROOT='${root}'\n${body}\n`);
  await chmod(path, 0o755);
  return path;
}

async function scannerOf(options: Partial<ScriptScannerOptions> & { script: string }): Promise<ScriptScanner> {
  const scanner = new ScriptScanner({
    directory: temporary,
    timeout: 20_000,
    exitCodesToIgnore: [],
    maxConcurrent: 4,
    log: { warn: () => undefined, error: (_details, message) => errors.push(message) },
    ...options,
  });
  scanners.push(scanner);
  await scanner.start();
  return scanner;
}

function subjectOf(bytes: Buffer = content): ScanSubject {
  return {
    size: bytes.length,
    type: undefined,
    async *open() {
      yield bytes.subarray(0, 3);
      yield bytes.subarray(3);
    },
  };
}

/** Every file below the directory for decrypted files. */
async function filesLeft(): Promise<string[]> {
  const entries = await readdir(temporary, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => entry.name);
}

async function note(name: string): Promise<string> {
  return readFile(join(root, name), "utf8").catch(() => "");
}

describe("ScriptScanner", () => {
  it("runs the script with the path of the whole file as its only argument", async () => {
    const scanner = await scannerOf({
      script: await script(
        'echo "$#" >$ROOT/count; cat "$1" >$ROOT/seen; stat -c "%a" "$1" "$(dirname "$1")" >$ROOT/modes; env >$ROOT/env',
      ),
    });
    process.env["SCRIPT_TEST_SECRET"] = "not for scripts";
    const big = Buffer.alloc(3_000_000, "x");
    expect(await scanner.scan(subjectOf(big), never)).toMatchObject({ outcome: "clean" });
    delete process.env["SCRIPT_TEST_SECRET"];
    expect(await note("count")).toBe("1\n");
    expect((await note("seen")).length).toBe(big.length);
    expect(await note("modes")).toBe("600\n700\n");
    expect(await note("env")).not.toContain("SCRIPT_TEST_SECRET");
    expect(await filesLeft()).toEqual([]);
    expect(scanner.health().ready).toBe(true);
  });

  it("does not have a shell read what it runs", async () => {
    const path = await script("exit 0", "scan; touch $ROOT `x` & .sh");
    const scanner = await scannerOf({ script: path });
    expect(await scanner.scan(subjectOf(), never)).toMatchObject({ outcome: "clean" });
  });

  it("takes any status but 0 for infected, but those that say that nothing was scanned", async () => {
    const path = await script('exit "$(cat $ROOT/status)"');
    const scanner = await scannerOf({ script: path, exitCodesToIgnore: [7, 9] });
    const outcome = async (status: number) => {
      await writeFile(join(root, "status"), String(status));
      return scanner.scan(subjectOf(), never);
    };
    expect(await outcome(0)).toMatchObject({ outcome: "clean" });
    for (const status of [1, 2, 125, 128, 137, 255]) {
      expect(await outcome(status)).toMatchObject({ outcome: "infected", threat: `script exit status ${status}` });
    }
    for (const status of [7, 9, 126, 127]) await expect(outcome(status)).rejects.toMatchObject({ code: "scanner_unavailable" });
    expect(await filesLeft()).toEqual([]);
  });

  it("takes a script that a signal ends for no verdict", async () => {
    for (const signal of ["KILL", "SEGV", "TERM"]) {
      const scanner = await scannerOf({ script: await script(`kill -${signal} $$; sleep 60`) });
      await expect(scanner.scan(subjectOf(), never)).rejects.toMatchObject({ code: "scanner_unavailable" });
    }
    expect(await filesLeft()).toEqual([]);
  });

  it("kills a script that takes too long, and all that it started", async () => {
    const scanner = await scannerOf({ script: await script("sleep 600 & echo $! >$ROOT/child; wait"), timeout: 500 });
    await expect(scanner.scan(subjectOf(), never)).rejects.toMatchObject({ code: "scanner_unavailable" });
    const child = Number(await note("child"));
    expect(child).toBeGreaterThan(0);
    await expect.poll(async () => isRunning(child)).toBe(false);
    expect(await filesLeft()).toEqual([]);
  });

  it("kills what the script leaves running when it ends", async () => {
    const scanner = await scannerOf({ script: await script("sleep 600 & echo $! >$ROOT/child") });
    expect(await scanner.scan(subjectOf(), never)).toMatchObject({ outcome: "clean" });
    const child = Number(await note("child"));
    expect(child).toBeGreaterThan(0);
    await expect.poll(async () => isRunning(child)).toBe(false);
  });

  it("kills the script when the scan is given up", async () => {
    const scanner = await scannerOf({ script: await script("sleep 600 & echo $! >$ROOT/child; wait") });
    const abort = new AbortController();
    const reason = new Error("given up");
    const scan = scanner.scan(subjectOf(), abort.signal);
    scan.catch(() => undefined);
    await expect.poll(() => note("child"), { timeout: 5000 }).toMatch(/\d\n/);
    abort.abort(reason);
    await expect(scan).rejects.toBe(reason);
    await expect.poll(async () => isRunning(Number(await note("child")))).toBe(false);
    expect(await filesLeft()).toEqual([]);
  });

  it("never runs the script on part of a file", async () => {
    const scanner = await scannerOf({ script: await script("touch $ROOT/ran") });
    const failure = new Error("the homeserver hung up");
    const broken: ScanSubject = {
      size: 10,
      type: undefined,
      async *open() {
        yield Buffer.from("12345");
        throw failure;
      },
    };
    await expect(scanner.scan(broken, never)).rejects.toBe(failure);
    await expect(scanner.scan({ ...subjectOf(), size: content.length + 1 }, never)).rejects.toMatchObject({ code: "scanner_unavailable" });

    const abort = new AbortController();
    const stalled: ScanSubject = {
      size: 10,
      type: undefined,
      async *open() {
        yield Buffer.from("12345");
        await new Promise(() => undefined);
      },
    };
    const scan = scanner.scan(stalled, abort.signal);
    scan.catch(() => undefined);
    await expect.poll(filesLeft).toEqual(["media"]);
    abort.abort(failure);
    await expect(scan).rejects.toBe(failure);
    expect(await filesLeft()).toEqual([]);
    expect(await note("ran")).toBe("");
    expect(await readdir(root)).not.toContain("ran");
  });

  it("believes no clean verdict on a file that the script changed or removed", async () => {
    const changing = await scannerOf({ script: await script('echo cured >"$1"') });
    expect(await changing.scan(subjectOf(), never)).toMatchObject({ outcome: "infected" });
    const rewriting = await scannerOf({ script: await script(`printf '%${content.length}s' cured >"$1"`) });
    expect(await rewriting.scan(subjectOf(), never)).toMatchObject({ outcome: "infected" });
    const removing = await scannerOf({ script: await script('rm "$1"') });
    await expect(removing.scan(subjectOf(), never)).rejects.toMatchObject({ code: "scanner_unavailable" });
  });

  it("lets a script change the mode of the file, for a daemon that is to read it", async () => {
    const scanner = await scannerOf({ script: await script('chmod 644 "$1"') });
    expect(await scanner.scan(subjectOf(), never)).toMatchObject({ outcome: "clean" });
  });

  it("removes what the script unpacked", async () => {
    const scanner = await scannerOf({ script: await script('cp "$1" "$(mktemp)"; echo "$TMPDIR" >$ROOT/tmpdir') });
    await scanner.scan(subjectOf(), never);
    expect(await note("tmpdir")).toContain(temporary);
    expect(await filesLeft()).toEqual([]);
  });

  it("is not ready without its script, says so, and becomes ready by itself", async () => {
    const scanner = await scannerOf({ script: join(root, "scan.sh"), checkInterval: 20 });
    expect(scanner.health()).toMatchObject({
      ready: false,
      problems: expect.arrayContaining([expect.stringContaining("no such program")]),
    });
    await expect(scanner.scan(subjectOf(), never)).rejects.toMatchObject({ code: "scanner_unavailable" });
    await writeFile(join(root, "scan.sh"), "#!/bin/sh\n", { mode: 0o644 });
    await expect.poll(() => scanner.health().problems.join()).toContain("may not be read and executed");
    await expect(scanner.scan(subjectOf(), never)).rejects.toMatchObject({ code: "scanner_unavailable" });
    await chmod(join(root, "scan.sh"), 0o755);
    await expect.poll(() => scanner.health().ready).toBe(true);
    expect(await scanner.scan(subjectOf(), never)).toMatchObject({ outcome: "clean" });
  });

  it("finds the script before a scan, without waiting for the next look", async () => {
    const scanner = await scannerOf({ script: join(root, "scan.sh"), checkInterval: 1e6 });
    await script("exit 1");
    expect(await scanner.scan(subjectOf(), never)).toMatchObject({ outcome: "infected" });
    await rm(join(root, "scan.sh"));
    await expect(scanner.scan(subjectOf(), never)).rejects.toMatchObject({ code: "scanner_unavailable" });
  });

  it("refuses an empty script, a directory, and one without its interpreter", async () => {
    const empty = join(root, "empty");
    await writeFile(empty, "", { mode: 0o755 });
    const lost = join(root, "lost");
    await writeFile(lost, "#!/no/such/interpreter\n", { mode: 0o755 });
    for (const path of [empty, root, lost]) {
      await expect((await scannerOf({ script: path })).scan(subjectOf(), never)).rejects.toMatchObject({ code: "scanner_unavailable" });
    }
    expect(await filesLeft()).toEqual([]);
  });

  it("finds a program on PATH", async () => {
    expect(await (await scannerOf({ script: "false" })).scan(subjectOf(), never)).toMatchObject({ outcome: "infected" });
  });

  it("stands by its verdicts until the script changes", async () => {
    const path = await script("exit 0");
    const scanner = await scannerOf({ script: path });
    const { stamp } = await scanner.scan(subjectOf(), never);
    expect(scanner.upholds(stamp)).toBe(true);
    expect((await scannerOf({ script: path })).upholds(stamp)).toBe(true);
    await utimes(path, 1, 1);
    await scanner.scan(subjectOf(), never);
    expect(scanner.upholds(stamp)).toBe(true);
    await script("exit 1");
    await scanner.scan(subjectOf(), never);
    expect(scanner.upholds(stamp)).toBe(false);
  });

  it("believes no clean verdict of a script that was replaced while it ran", async () => {
    const path = await script('cp "$0" $ROOT/copy; echo "# new" >>$ROOT/copy; mv $ROOT/copy "$0"');
    await expect((await scannerOf({ script: path })).scan(subjectOf(), never)).rejects.toMatchObject({ code: "scanner_unavailable" });
  });

  it("names in its policy what shapes its verdicts", async () => {
    const policies = [
      await scannerOf({ script: "true" }),
      await scannerOf({ script: "false" }),
      await scannerOf({ script: "true", exitCodesToIgnore: [1] }),
    ].map((scanner) => scanner.policy);
    expect(new Set(policies).size).toBe(3);
    const [one, other] = [
      await scannerOf({ script: "true", exitCodesToIgnore: [1, 2] }),
      await scannerOf({ script: "true", exitCodesToIgnore: [2, 1] }),
    ];
    expect(one.policy).toBe(other.policy);
  });

  it("runs no more at once than it may, in turn", async () => {
    const scanner = await scannerOf({
      script: await script(
        'echo "+ $(cat "$1")" >>$ROOT/log; until [ -e "$ROOT/go-$(cat "$1")" ]; do sleep 0.02; done; echo "- $(cat "$1")" >>$ROOT/log',
      ),
      maxConcurrent: 2,
    });
    expect(scanner.capacity).toBe(2);
    const scans = ["0001", "0002", "0003", "0004"].map((name) => scanner.scan(subjectOf(Buffer.from(name)), never));
    await expect
      .poll(async () => (await note("log")).split("\n").filter(Boolean).toSorted(), { timeout: 5000 })
      .toEqual(["+ 0001", "+ 0002"]);
    expect(await filesLeft()).toHaveLength(2);
    await writeFile(join(root, "go-0002"), "");
    await expect.poll(() => note("log"), { timeout: 5000 }).toMatch(/- 0002\n\+ 0003\n$/);
    for (const name of ["0001", "0003", "0004"]) await writeFile(join(root, `go-${name}`), "");
    expect(await Promise.all(scans)).toHaveLength(4);
  });

  it("leaves the line when its signal aborts", async () => {
    const scanner = await scannerOf({ script: await script("until [ -e $ROOT/go ]; do sleep 0.02; done"), maxConcurrent: 1 });
    const first = scanner.scan(subjectOf(), never);
    const abort = new AbortController();
    const second = scanner.scan(subjectOf(), abort.signal);
    const reason = new Error("gave up");
    abort.abort(reason);
    await expect(second).rejects.toBe(reason);
    await writeFile(join(root, "go"), "");
    expect(await first).toMatchObject({ outcome: "clean" });
    expect(await scanner.scan(subjectOf(), never)).toMatchObject({ outcome: "clean" });
  });
});

describe("the files that ScriptScanner makes", () => {
  it("are given to the removal command, and are gone even if it fails", async () => {
    const removal = await script('echo "$1 $# $(cat "$2")" >>$ROOT/removed; exit "$(cat $ROOT/status)"', "remove");
    const scanner = await scannerOf({ script: "true", removalCommand: `${removal}  --zero` });
    for (const status of ["0", "3"]) {
      await writeFile(join(root, "status"), status);
      expect(await scanner.scan(subjectOf(), never)).toMatchObject({ outcome: "clean" });
      expect(await filesLeft()).toEqual([]);
    }
    expect(await note("removed")).toBe(`--zero 2 ${content.toString()}\n`.repeat(2));
    expect(errors).toEqual([expect.stringContaining("removal command")]);
    expect(scanner.health()).toMatchObject({ ready: true, problems: expect.arrayContaining([expect.stringContaining("removal command")]) });
  });

  it("are unlinked when the removal command is not installed", async () => {
    const scanner = await scannerOf({ script: "true", removalCommand: "no-such-command-anywhere" });
    expect(await scanner.scan(subjectOf(), never)).toMatchObject({ outcome: "clean" });
    expect(await filesLeft()).toEqual([]);
    expect(errors).toHaveLength(1);
  });

  it("are removed when the gateway ends, with the scripts", async () => {
    const scanner = await scannerOf({ script: await script("echo $$ >$ROOT/pid; sleep 600") });
    const scan = scanner.scan(subjectOf(), never);
    scan.catch(() => undefined);
    await expect.poll(() => note("pid"), { timeout: 5000 }).toMatch(/\d\n/);
    await scanner[Symbol.asyncDispose]();
    await expect(scan).rejects.toMatchObject({ code: "shutting_down" });
    expect(await isRunning(Number(await note("pid")))).toBe(false);
    expect(await readdir(temporary)).toEqual([]);
    await expect(scanner.scan(subjectOf(), never)).rejects.toMatchObject({ code: "shutting_down" });
  });

  it("are removed at the next start after a crash, but never those of a gateway that runs", async () => {
    const program = `
      import { ScriptScanner } from ${JSON.stringify(new URL("../../src/scan/script-scanner.ts", import.meta.url).href)};
      const scanner = new ScriptScanner({ script: ${JSON.stringify(await script("touch $ROOT/started; exec sleep 5"))}, directory: ${JSON.stringify(temporary)},
        timeout: 1e5, exitCodesToIgnore: [], maxConcurrent: 1, log: { warn() {}, error() {} } });
      await scanner.start();
      await scanner.scan({ size: 6, type: undefined, async *open() { yield Buffer.from("secret"); } }, new AbortController().signal);`;
    const other = spawn(process.execPath, ["--input-type=module-typescript", "-e", program], { stdio: "inherit" });
    await expect.poll(() => readdir(root), { timeout: 10_000 }).toContain("started");
    await scannerOf({ script: "true" });
    expect(await filesLeft()).toEqual(["media"]);

    const exited = once(other, "exit");
    other.kill("SIGKILL");
    await exited;
    expect(await filesLeft()).toEqual(["media"]);
    await mkdir(join(temporary, "somebody-elses"));
    await writeFile(join(temporary, "somebody-elses", "file"), "");
    await scannerOf({ script: "true" });
    expect(await filesLeft()).toEqual(["file"]);
  }, 30_000);

  it("are removed from folders that an archive closed, or that are deeper than a path may be, and links are not followed", async () => {
    await mkdir(join(root, "kept"));
    await writeFile(join(root, "kept", "file"), "");
    const path = await script(`
      mkdir -p "$TMPDIR"/{read,none/inner}
      for place in read none/inner $'\xff'; do cp "$1" "$TMPDIR/$place"; done
      ln -s $ROOT/kept "$TMPDIR/read/link"
      (cd "$TMPDIR"; for level in {1..40}; do name=$(printf "%0120d" $level); mkdir $name; cd $name; done; cp "$1" .; chmod 555 .)
      chmod 555 "$TMPDIR/read"; chmod 0 "$TMPDIR/none/inner" "$TMPDIR/none"; chmod 555 "$TMPDIR" $ROOT/kept`);
    const said = await asOrdinaryUser(`
      const scanner = scannerOf(${JSON.stringify(path)});
      await scanner.start();
      say(await outcome(scanner), await outcome(scanner), scanner.health().ready, await filesLeft());
      await scanner[Symbol.asyncDispose]();
      say(await readdir(directory));`);
    expect(said).toEqual(["clean", "clean", true, [], []]);
    expect((await stat(join(root, "kept"))).mode & 0o777).toBe(0o555);
    expect(await readdir(join(root, "kept"))).toEqual(["file"]);
  });

  it("block as long as they can't be removed, whoever left them, and never keep the gateway from ending", async () => {
    // No folder is removed from one that may not be written to.
    const said = await asOrdinaryUser(`
      const scanner = scannerOf(${JSON.stringify(await script("exit 0"))});
      await scanner.start();
      await chmod(directory, 0o555);
      await scanner[Symbol.asyncDispose]();
      await utimes(join(directory, (await readdir(directory))[0]), 1, 1);
      const next = scannerOf("true");
      await next.start();
      say(next.health().ready, next.health().problems.join(), await outcome(next));
      await chmod(directory, 0o755);
      say(await outcome(next), next.health().ready, (await readdir(directory)).length);
      await next[Symbol.asyncDispose]();
      say(await readdir(directory), errors);`);
    const problem: unknown = expect.stringContaining(`could not be removed: ${temporary}/matrix-icap-gateway-script-`);
    const blocked = [false, problem, "scanner_unavailable"];
    expect(said).toEqual(blocked.concat("clean", true, 1, [[]], [["decrypted files could not be removed"]]));
  });

  it("are removed at the next start, however young, where the gateway ended while it removed them", async () => {
    const left = join(temporary, "matrix-icap-gateway-script-abcdef", "file-1");
    await mkdir(left, { recursive: true });
    await writeFile(join(left, "media"), "secret");
    await scannerOf({ script: "true" });
    expect(await filesLeft()).toEqual([]);
  });

  it("go where nobody else may look, and health says whether that is a tmpfs", async () => {
    const scanner = await scannerOf({ script: "true" });
    const [name = ""] = await readdir(temporary);
    expect((await stat(join(temporary, name))).mode & 0o777).toBe(0o700);
    const onDisk = scanner.health().problems.some((problem) => problem.includes("not a tmpfs"));
    const inMemory = await scannerOf({ script: "true", directory: "/dev/shm" });
    expect(inMemory.health()).toEqual({ ready: true, problems: [] });
    expect(onDisk).toBe((await filesystemOf(temporary)) !== "tmpfs");
  });

  it("have a place again after somebody cleaned up, or made the directory only later", async () => {
    const scanner = await scannerOf({ script: "true", directory: join(root, "later") });
    expect(scanner.health().ready).toBe(false);
    await expect(scanner.scan(subjectOf(), never)).rejects.toMatchObject({ code: "scanner_unavailable" });
    await mkdir(join(root, "later"));
    expect(await scanner.scan(subjectOf(), never)).toMatchObject({ outcome: "clean" });
    await rm(join(root, "later"), { recursive: true });
    await mkdir(join(root, "later"));
    expect(await scanner.scan(subjectOf(), never)).toMatchObject({ outcome: "clean" });
  });
});

/** Root may do anything with any folder, so a test by root says nothing of others. */
const ORDINARY_USER = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : undefined;

/** Runs these lines, which make scanners and `say` things, in a process of a user who is not root; gives what they said. */
async function asOrdinaryUser(lines: string): Promise<unknown[]> {
  const program = `
    import { chmod, readdir, utimes } from "node:fs/promises";
    import { join } from "node:path";
    import { ScriptScanner } from ${JSON.stringify(new URL("../../src/scan/script-scanner.ts", import.meta.url).href)};
    const directory = ${JSON.stringify(temporary)};
    const errors = [];
    const log = { warn() {}, error: (_details, message) => errors.push(message) };
    const scannerOf = (script) => new ScriptScanner({ script, directory, timeout: 20_000, exitCodesToIgnore: [], maxConcurrent: 1, log });
    const subject = { size: 6, type: undefined, async *open() { yield Buffer.from("secret"); } };
    const outcome = (scanner) => scanner.scan(subject, new AbortController().signal).then((verdict) => verdict.outcome, (error) => error.code);
    const filesLeft = async () => (await readdir(directory, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
    const said = [];
    const say = (...things) => said.push(...things);
    ${lines}
    process.stdout.write(JSON.stringify(said));`;
  if (ORDINARY_USER !== undefined) {
    for (const path of [root, ...(await readdir(root)).map((name) => join(root, name))])
      await chown(path, ORDINARY_USER.uid, ORDINARY_USER.gid);
  }
  const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", program], {
    stdio: ["ignore", "pipe", "inherit"],
    cwd: "/",
    ...ORDINARY_USER,
  });
  let output = "";
  for await (const chunk of child.stdout) output += String(chunk);
  return JSON.parse(output) as unknown[];
}

/** A process that was killed and that nobody has asked for yet (a zombie) does not run. */
async function isRunning(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
  return stat !== undefined && !/\) Z /.test(stat);
}

async function filesystemOf(path: string): Promise<string> {
  const df = spawn("df", ["--output=fstype", path], { stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  for await (const chunk of df.stdout) output += String(chunk);
  return output.trim().split("\n").at(-1) ?? "";
}
