/** Which service a command asks, and how: by URL and options, or as the gateway's configuration has it. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { stringify } from "yaml";
import type { IcapRequest } from "../../icap/index.ts";
import { EICAR } from "../../src/scan/canary-samples.ts";
import { certificates } from "../icap/support/certificates.ts";
import { CLEAN as ACQUITTAL, OPTIONS, scriptedServer } from "../icap/support/scripted-server.ts";
import { tlsServer } from "../icap/support/tls-server.ts";
import { icap, jsonLines } from "./run.ts";
import { BLOCKED, CLEAN, TABLE, answering, serve } from "./services.ts";

const MIB = 1024 * 1024;

async function fileOf(name: string, content: string): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "mig-service-"));
  onTestFinished(() => rm(directory, { recursive: true }));
  await writeFile(join(directory, name), content);
  return join(directory, name);
}

/** The words that name a service of a configuration. */
async function configured(service: object, scan: object = {}): Promise<string[]> {
  return ["-c", await fileOf("config.yaml", stringify({ icap: [{ name: "av", ...service }], scan })), "--service", "av"];
}

interface Found {
  readonly samples: readonly { readonly sample: string; readonly result: string; readonly required: boolean; readonly advice?: string }[];
  readonly provenSize?: unknown;
  readonly advice: readonly string[];
}

async function canary(...args: string[]): Promise<Found & { code: number | null }> {
  const { code, stdout } = await icap(["canary", ...args, "--json"]);
  const [found] = jsonLines(stdout) as [Found];
  return { ...found, code };
}

async function adviceOf(...words: string[]): Promise<readonly string[]> {
  const { stdout } = await icap(["options", ...words, "--json"]);
  return (jsonLines(stdout) as Pick<Found, "advice">[])[0]?.advice ?? [];
}

const encrypted = ({ samples }: Found): unknown => samples.find(({ sample }) => sample === "encrypted");

/** Finds EICAR in the first 2 MiB, unless it is packed or encrypted; knows what it was asked. */
function shortSighted() {
  const asked: IcapRequest[] = [];
  const handler = answering((request, body) => {
    asked.push(request);
    return body.subarray(0, 2 * MIB).includes(EICAR) ? BLOCKED : CLEAN;
  });
  return { asked, handler };
}

describe("a service by its URL", () => {
  it("gets the fields that are given, with each request", async () => {
    const heads: string[] = [];
    await using server = await scriptedServer({
      optionsHead: (head) => heads.push(head),
      complete: ({ socket, received }) => {
        heads.push(received());
        socket.write(ACQUITTAL);
      },
    });

    const fields = ["--header", "X-Tenant: chat", "--header", "X-Note:a: b "];
    const { code } = await icap(["scan", server.url, await fileOf("clean.txt", "clean"), ...fields]);

    expect(code).toBe(0);
    expect(heads.length).toBeGreaterThan(1);
    for (const head of heads) expect(head).toContain("\r\nX-Tenant: chat\r\nX-Note: a: b\r\n");
  });

  it.each([
    ["trusted", 0],
    ["ignored", 1],
  ])("is not sent what it does not want if its lists are %s", async (lists, sent) => {
    await using server = await scriptedServer({
      options: OPTIONS.replace("Allow", "Transfer-Ignore: media\r\nTransfer-Complete: *\r\nAllow").replace("media", "txt"),
      complete: ({ socket }) => socket.write(ACQUITTAL),
    });

    const file = await fileOf("clean.txt", "clean");
    const { code } = await icap(["scan", server.url, file, "--profile", "skyhigh", "--transfer-lists", lists]);

    expect([code, server.count.requests]).toEqual([0, sent]);
  });

  it.each([
    ["TLSv1.2", 0],
    ["TLSv1.3", 2],
  ])("must speak at least %s if that is asked for", async (version, status) => {
    await using server = await tlsServer({ maxVersion: "TLSv1.2" });

    const { code } = await icap(["options", server.url, "--ca", await fileOf("ca.pem", certificates.ca), "--min-version", version]);

    expect(code).toBe(status);
  });

  it.each([
    [["--header", "X-Tenant"], "--header must be a name and a value"],
    [["--header", "Host: elsewhere"], 'fields may not hold "Host"'],
    [["--header", "X-Tenant: a\r\nX-Other: b"], "must be printable ASCII"],
    [["--transfer-lists", "some"], "--transfer-lists must be one of ignored, trusted"],
    [["--min-version", "TLSv1"], "--min-version must be one of TLSv1.2, TLSv1.3"],
  ])("can't have %j", async (args, message) => {
    const { code, stderr } = await icap(["options", "icaps://127.0.0.1:1/av", ...args]);

    expect(code).toBe(2);
    expect(stderr).toContain(message);
  });
});

describe("a service of the configuration", () => {
  it("must catch the canaries that stand there, and no others", async () => {
    const { handler } = shortSighted();
    await using services = await serve({ av: handler });
    const urls = [services.url("av")];

    const lenient = await canary(...(await configured({ urls, canary: ["plain", "zip"], prove_size: false })));
    const strict = await canary(...(await configured({ urls, canary: ["plain", "encrypted"], prove_size: false })));
    const named = await canary(...(await configured({ urls, canary: ["plain"], prove_size: false })), "--canary", "encrypted");

    expect([lenient.code, strict.code, named.code]).toEqual([0, 1, 1]);
    expect([lenient, strict, named].map(encrypted)).toMatchObject([
      { result: "missed", required: false },
      { result: "missed", required: true },
      { result: "missed", required: true },
    ]);
    expect(lenient.advice).toEqual([
      expect.stringMatching(/at the end of a zip of 3 MB .* \(the configuration does not require it\)$/),
      expect.stringMatching(/encrypted archive .* \(the configuration does not require it\)$/),
    ]);
  });

  it("that is to catch no canaries is sent none, and may say of the harmless file what it likes", async () => {
    await using services = await serve({ dlp: answering(BLOCKED) });

    const found = await canary(...(await configured({ urls: [services.url("dlp")], canary: [] })));

    expect(found).toMatchObject({ code: 0, samples: [{ sample: "harmless", result: "blocked", required: false }] });
    expect(found.samples).toHaveLength(1);
  });

  it.each([
    ["all that is let in", { max_file_size: "8MiB" }, {}, [], { wanted: 8 * MIB }],
    ["as much as is let in, if that is little", { max_file_size: "1MiB" }, {}, [], { wanted: MIB, proven: MIB }],
    ["nothing, if sizes are not to be proven", { max_file_size: "8MiB" }, { prove_size: false }, [], undefined],
    ["what is asked for, whatever stands there", {}, { prove_size: false }, ["--size", "4MiB"], { wanted: 4 * MIB }],
  ])("must scan %s", async (_, scan, service, args, size) => {
    const { handler } = shortSighted();
    await using services = await serve({ av: handler });

    const words = await configured({ urls: [services.url("av")], canary: ["plain", "zip"], ...service }, scan);
    const found = await canary(...words, ...args);

    if (size === undefined) expect(found.provenSize).toBeUndefined();
    else expect(found.provenSize).toMatchObject(size);
    expect(found.code).toBe(size === undefined || size.wanted === MIB ? 0 : 1);
  });

  it.each([
    [true, "/media.zip HTTP", "application/zip"],
    [false, "/media HTTP", "application/octet-stream"],
  ])("is told what canaries and files are, as it stands there: %s", async (describeType, target, type) => {
    const { asked, handler } = shortSighted();
    await using services = await serve({ av: handler });
    const service = { urls: [services.url("av")], profile: describeType ? "auto" : "skyhigh", describe_type: describeType };
    const words = await configured(service);

    await canary(...words, "--canary", "zip", "--size", "1MiB");
    await icap(["scan", ...words, await fileOf("plan.zip", "no zip at all")]);

    const told = asked.slice(1).map(({ httpRequest, httpResponse }) => [httpRequest?.startLine, httpResponse?.headers.get("content-type")]);
    // What is inside a file on disk, nobody has looked.
    const named = [expect.stringContaining(target), expect.any(String)];
    expect(told).toEqual([[named[0], type], [named[0], type], named]);
  });

  it("is shown which of the fields that it asks for it is not told, and which it can't be", async () => {
    const include = "X-Client-IP, X-Authenticated-User, X-Authenticated-Groups, X-Server-IP, X-Who";
    await using server = await scriptedServer({ options: OPTIONS.replace("Allow", `X-Include: ${include}\r\nAllow`) });
    expect(await adviceOf(server.url)).toEqual([
      expect.stringMatching(/told x-client-ip, x-authenticated-user, x-server-ip .*\(client_ip, user, server_ip\)$/),
      expect.stringMatching(/told x-authenticated-groups, x-who .*cannot be told/),
    ]);
    const context = { client_ip: "asked", user: "always", user_header: "X-Who" };
    expect(await adviceOf(...(await configured({ urls: [server.url], context })))).toEqual([
      expect.stringMatching(/told x-server-ip .*\(server_ip\)$/),
      expect.stringMatching(/told x-authenticated-user, x-authenticated-groups .*cannot be told/),
    ]);
  });
});

describe("a service with a limit of its own", () => {
  it("falls short of a size where it fails at larger files: that is 1, although nothing is missed", async () => {
    const limited = answering((_, body) => (body.length > 4 * MIB ? { status: 500 } : body.includes(EICAR) ? BLOCKED : CLEAN));
    await using services = await serve({ av: limited });

    const found = await canary(services.url("av"), "--canary", "plain", "--size", "16MiB");

    expect(found).toMatchObject({ code: 1, provenSize: { wanted: 16 * MIB, complete: true } });
    expect(new Set(found.samples.map(({ result }) => result))).toEqual(new Set(["passed", "caught", "unknown"]));
    expect(found.advice).toEqual([expect.stringMatching(/is proven to scan files up to .*SendPercentData 0/)]);
  });

  it("beyond which it answers before it has all of a file, as c-icap does, is told how to wait", async () => {
    const hasty = {
      table: TABLE,
      async handle(request: IcapRequest) {
        let size = 0;
        for await (const bytes of request.body) if ((size += bytes.length) > MIB / 4) break;
        return CLEAN;
      },
    };
    await using services = await serve({ av: hasty });

    const { advice, samples } = await canary(services.url("av"), "--canary", "trailing", "--size", "0");

    expect(samples[1]?.result).not.toBe("caught");
    expect(advice).toEqual([expect.stringMatching(/it may answer before it has all of a file .*SendPercentData 0/)]);
  });
});
