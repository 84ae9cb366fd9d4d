import { describe, expect, it } from "vitest";
import { icap } from "./run.ts";

const URL = "icap://127.0.0.1:1/av";

describe("matrix-icap-gateway icap", () => {
  it.each([
    [["--help"], "icap scan URL FILE…"],
    [["options", "--help"], "Exit status: 0 when it answers"],
    [["scan", "-h"], "Exit status: 0 when all files are clean, 1 when any is infected"],
    [["canary", "--help"], "plain, zip, pdf, png, trailing, expand, encrypted"],
  ])("%j helps", async (args, text) => {
    expect(await icap(args)).toMatchObject({ code: 0, stdout: expect.stringContaining(text), stderr: "" });
  });

  it.each([
    [[], "icap: the command is missing"],
    [["frobnicate"], "icap: unknown command: frobnicate"],
    [["options"], "the service's URL is missing"],
    [["options", "http://127.0.0.1/"], "an ICAP URL has the form"],
    [["options", URL, "more"], "unknown words: more"],
    [["options", URL, "--password", "x"], "Unknown option '--password'"],
    [["options", URL, "--user", "x"], "--user and --password-file go together"],
    [["options", URL, "--ca", "/nowhere.pem"], "--ca: /nowhere.pem is not there"],
    [["options", URL, "--timeout", "soon"], "--timeout must be a duration"],
    [["options", URL, "--profile", "norton"], "--profile must be one of auto, c-icap"],
    [["options", URL, "--method", "GET"], "--method must be one of RESPMOD, REQMOD"],
    [["scan", URL], "no file to scan is named"],
    [["scan", URL, "-"], "standard input can't be scanned"],
    [["scan", URL, "x", "--jobs", "0"], "--jobs must be a number from 1 to 64"],
    [["canary", URL, "--canary", "exe"], "--canary must be one of plain"],
    [["canary", URL, "--size", "1"], "--size must be 0 or a size from 1 KiB"],
  ])("%j is an error in one line, with exit status 2", async (args, message) => {
    const { code, stdout, stderr } = await icap(args);

    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(/^matrix-icap-gateway: .* \(--help shows what there is\)\n$/);
    expect(stderr).toContain(message);
  });
});
