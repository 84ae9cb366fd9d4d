import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { describe, expect, it } from "vitest";

const MAIN = join(import.meta.dirname, "../quickstart/main.ts");

/** The quickstart in a process and a temporary directory of its own. */
async function startQuickstart(...args: string[]) {
  const directory = await mkdtemp(join(tmpdir(), "quickstart-test-"));
  const child = spawn(process.execPath, [MAIN, ...args], { env: { ...process.env, TMPDIR: directory }, stdio: ["ignore", "pipe", "pipe"] });
  const exited = once(child, "exit");
  return {
    child,
    directory,
    exited,
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await exited;
      await rm(directory, { recursive: true, force: true });
    },
  };
}

describe("quickstart", () => {
  it("sends files through the gateway, says what came back, and ends with 0", async () => {
    await using quickstart = await startQuickstart("--once");
    const { stdout, stderr } = quickstart.child;
    const [output, errors, [code]] = await Promise.all([text(stdout), text(stderr), quickstart.exited]);

    expect(errors).toBe("");
    const row = (request: string): string =>
      output
        .split("\n")
        .find((line) => line.startsWith(request))
        ?.slice(request.length)
        .trim()
        .replace(/ +\d+$/, "")
        .replaceAll(/ +/g, " ") ?? "";
    expect(row("GET  download clean file ")).toBe("200 82 bytes, as uploaded clean");
    expect(row("GET  scan clean file ")).toBe("200 clean: true, info: File is clean clean");
    expect(row("GET  download EICAR ")).toBe("403 MCS_MEDIA_NOT_CLEAN not clean");
    expect(row("GET  scan EICAR ")).toBe("200 clean: false, info: ***VIRUS DETECTED*** not clean");
    expect(row("GET  scan file on the SHA-256 list ")).toBe("200 clean: false, info: ***VIRUS DETECTED*** not clean");
    expect(row("POST download_encrypted clean file ")).toBe("200 82 bytes; decrypts to the file clean");
    expect(row("POST scan_encrypted clean file, sealed ")).toBe("200 clean: true, info: File is clean clean");
    expect(row("POST download_encrypted EICAR, sealed ")).toBe("403 MCS_MEDIA_NOT_CLEAN not clean");
    expect(row("POST scan_encrypted EICAR ")).toBe("200 clean: false, info: ***VIRUS DETECTED*** not clean");
    expect(row("GET  download clean file, wrong token ")).toBe("401 M_UNKNOWN_TOKEN -");
    expect(row("GET  download old media, no token ")).toBe("200 80 bytes, as uploaded clean");
    expect(output).toContain("All 11 answers are as they should be.");
    const rows = withoutTimes(output).filter((line) => /^(GET|POST) /.test(line));
    expect(withoutTimes(await readFile(join(import.meta.dirname, "../README.md"), "utf8")), "the README shows it").toEqual(
      expect.arrayContaining(rows),
    );
    expect(code).toBe(0);
    expect(await readdir(quickstart.directory)).toEqual([]);
  });

  it("stays up to be tried with the commands that it prints, and leaves nothing behind when it is ended", async () => {
    await using quickstart = await startQuickstart();
    let output = "";
    for await (const chunk of quickstart.child.stdout.setEncoding("utf8").iterator({ destroyOnReturn: false })) {
      output += String(chunk);
      if (output.includes("Ctrl-C ends it")) break;
    }
    quickstart.child.stdout.resume();

    const answers: string[] = [];
    for (const command of output.split("\n").filter((line) => line.startsWith("curl "))) answers.push(await asCurl(command));
    expect(answers).toEqual(["200", "403", "200", "200", "200", "404", "200", "200"]);

    quickstart.child.kill("SIGINT");
    expect(await quickstart.exited).toEqual([0, null]);
    expect(await readdir(quickstart.directory)).toEqual([]);
  });
});

function withoutTimes(text: string): string[] {
  return text.split("\n").map((line) => line.replace(/ +\d+$/, ""));
}

/** Sends what the command would, which needs no curl then; resolves to the status. */
async function asCurl(command: string): Promise<string> {
  const [, url = ""] = / (http:\S+)/.exec(command) ?? [];
  const [, name, value] = / -H '(\S+): ([^']*)'/.exec(command) ?? [];
  const [, body] = / -d '([^']*)'/.exec(command) ?? [];
  const rest = command.replaceAll(/ (-i|http:\S+|-H '[^']*'|-d '[^']*')/g, "");
  expect(rest).toBe("curl");
  const response = await fetch(url, {
    method: body === undefined ? "GET" : "POST",
    headers: {
      ...(name === undefined || value === undefined ? {} : { [name]: value }),
      ...(body === undefined ? {} : { "content-type": "application/x-www-form-urlencoded" }),
    },
    ...(body === undefined ? {} : { body }),
  });
  await response.arrayBuffer();
  return String(response.status);
}
