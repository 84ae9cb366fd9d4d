/** The benchmark as it is run, for an instant. */
import { execFile } from "node:child_process";
import { once } from "node:events";
import { type RequestListener, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { build } from "../../bench/release.ts";
import { bodyOf, sizeOf, tailOf } from "../../bench/media.ts";

/** Milliseconds: it starts a dozen processes, one after another. */
const PATIENCE = 240_000;
const ROOT = join(import.meta.dirname, "../..");

interface Run {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

function bench(...args: readonly string[]): Promise<Run> {
  return run("main.ts", "--runs", "1", "--seconds", "0.3", "--warm-up", "0.5", ...args);
}

function run(program: string, ...args: readonly string[]): Promise<Run> {
  return new Promise((resolve) => {
    execFile(process.execPath, [join(ROOT, "bench", program), ...args], (error, stdout, stderr) =>
      resolve({ status: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}

/** Measures what answers so. */
async function benchOf(listener: RequestListener, ...args: readonly string[]): Promise<Run> {
  await using server = createServer(listener).listen(0, "127.0.0.1");
  await once(server, "listening");
  const run = await bench("--base-url", `http://127.0.0.1:${(server.address() as AddressInfo).port}`, ...args);
  server.closeAllConnections();
  return run;
}

function media(url = ""): Buffer {
  const id = url.split("/").at(-1) ?? "";
  return Buffer.concat([...bodyOf(sizeOf(id) ?? 0), tailOf(id)]);
}

describe.runIf(process.platform === "linux")("npm run bench", { timeout: PATIENCE }, () => {
  it("measures the gateway", async () => {
    const { status, stdout, stderr } = await bench(
      "--only",
      "cold-10k,upload-10k,upload-scan-file-10k,repeated-scan-encrypted-body",
      "--json",
    );
    expect({ status, stderr }).toMatchObject({ status: 0 });
    const reports = JSON.parse(stdout) as {
      outcomes: { errors: number; figures: Record<string, number>; ceilings: object; facts: object }[];
    }[];
    const [cold, upload, scanFile, repeated] = reports.flatMap(({ outcomes }) => outcomes);
    for (const outcome of [cold, upload, scanFile, repeated]) {
      expect(outcome?.errors).toBe(0);
      for (const figure of ["requestsPerSecond", "p50", "peakMemory"]) expect(outcome?.figures[figure]).toBeGreaterThan(0);
    }
    for (const { ceilings } of [cold, upload].flatMap((outcome) => outcome ?? []))
      expect(Object.keys(ceilings)).toEqual(["homeserver", "icap"]);
    // Whoever knows hash and key of encrypted media needs no yes of the homeserver for its verdict.
    expect(repeated?.facts).toMatchObject({ "homeserver asked, a request": 0 });
  });

  it("measures other implementations, in chunks and without keeping connections too", async () => {
    const right = await benchOf(
      (request, response) => void response.writeHead(200, { connection: "close" }).end(media(request.url)),
      "--only",
      "cold-10k",
    );
    expect(right).toMatchObject({ status: 0 });
    const chunked = await benchOf(
      (request, response) => {
        response.write(media(request.url).subarray(0, 100));
        response.end(media(request.url).subarray(100));
      },
      "--only",
      "cold-10k",
    );
    expect(chunked).toMatchObject({ status: 0 });
  });

  it.each<[string, RequestListener, string]>([
    ["the end is cut off", (request, response) => void response.end(media(request.url).subarray(1)), "10239 bytes instead of 10240"],
    [
      "a byte differs",
      (request, response) => void response.end(media(request.url).fill("x", 10_239)),
      "other bytes than those of the media",
    ],
    ["it is another media's", (_request, response) => void response.end(media("/10240-x-1")), "other bytes than those of the media"],
    ["it is an error", (_request, response) => void response.writeHead(503).end("not now"), "503 not now"],
    ["nothing comes", (request) => void request.socket.destroy(), "the connection was closed"],
  ])("calls figures void when %s", async (_what, listener, why) => {
    const { status, stdout } = await benchOf(listener, "--only", "cold-10k");
    expect(status).toBe(1);
    expect(stdout).toContain("download 10 KiB: VOID");
    expect(stdout).toMatch(/cold-10k: \d+ ERRORS, its figures are void/);
    expect(stdout).toContain(why);
  });

  it("calls a verdict that is not clean an error", async () => {
    const { status, stdout } = await benchOf(
      (_request, response) => void response.end('{"clean":false,"info":"***VIRUS DETECTED***"}'),
      "--only",
      "repeated-scan",
    );
    expect(status).toBe(1);
    expect(stdout).toContain("no clean verdict");
  });

  it("says how it is used, and ends with 2", async () => {
    const { status, stderr } = await bench("--only", "cold-10q");
    expect(status).toBe(2);
    expect(stderr).toContain("there is no row or group cold-10q");
  });
});

describe.runIf(process.platform === "linux")("npm run bench:compare", { timeout: PATIENCE }, () => {
  it("shows builds side by side", async () => {
    await build();
    const quick = ["--rounds", "1", "--seconds", "0.3", "--warm-up", "0.3"];
    const variants = [`this=${ROOT}`, `that=${ROOT}::--v8-pool-size=2`];
    const { status, stdout, stderr } = await run("compare.ts", "--only", "repeated-10k,large-crowd", ...quick, ...variants);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    for (const row of ["repeated-10k", "large-crowd"]) {
      const [heading, , ...lines] = (stdout.split(`${row}\n\n`)[1] ?? "").split("\n");
      expect(heading).toContain("requests/s");
      for (const [index, name] of ["this", "that"].entries())
        expect(lines[index]).toMatch(new RegExp(`^${name}( +[1-9][0-9.]*| +0\\.[0-9]+){6}$`));
    }
  });

  it("starts Node with the flags of a build", async () => {
    await build();
    const { status, stderr } = await run("compare.ts", "--only", "cold-10k", `this=${ROOT}`, `that=${ROOT}::--no-such-flag`);
    expect(status).not.toBe(0);
    expect(stderr).toContain("bad option: --no-such-flag");
  });

  it.each([
    [["--only", "cold-10k", `this=${ROOT}`], "name at least two builds to compare"],
    [["--only", "cold-10k", "here", `this=${ROOT}`], "here is not NAME=DIRECTORY"],
    [["--only", "cold-10k", "that=/nowhere", `this=${ROOT}`], "/nowhere/dist/src/main.js is not there"],
    [["--only", "process-start", `this=${ROOT}`, `that=${ROOT}`], "process-start is no load of requests"],
    [[`this=${ROOT}`, `that=${ROOT}`], "--only must name rows"],
  ])("says how it is used: %j", async (args, why) => {
    const { status, stderr } = await run("compare.ts", ...args);
    expect({ status, stderr }).toEqual({ status: 2, stderr: expect.stringContaining(why) as string });
  });
});
