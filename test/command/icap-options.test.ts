import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { certificates } from "../icap/support/certificates.ts";
import { tlsServer } from "../icap/support/tls-server.ts";
import { icap, jsonLines } from "./run.ts";
import { CLEAN, type Services, TABLE, antivirus, answering, serve } from "./services.ts";

let services: Services;
beforeAll(async () => {
  services = await serve({
    av: antivirus,
    dlp: answering(CLEAN, { ...TABLE, methods: ["REQMOD"], allow204: false }),
    blind: answering(CLEAN, { isTag: "CI0001-1B2M2Y8AsgTpgAmY7PhCfgAA" }),
  });
});
afterAll(() => services[Symbol.asyncDispose]());

/** Rows of two columns, as an object. */
function rows(stdout: string): Record<string, string> {
  const lines = stdout.split("\n\n", 1)[0]?.split("\n") ?? [];
  return Object.fromEntries(lines.map((line) => /^(.*?) {2,}(.*)$/.exec(line)?.slice(1) ?? [line, ""]) as [string, string][]);
}

describe("icap options", () => {
  it("shows what the service says of itself", async () => {
    const { code, stdout, stderr } = await icap(["options", services.url("av")]);

    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(rows(stdout)).toMatchObject({
      URL: services.url("av"),
      Service: "test service",
      ISTag: "tag-1",
      Methods: "RESPMOD",
      Preview: "1024 bytes",
      "Allow: 204": "yes",
      "Max-Connections": "7",
      "Options-TTL": "120 s",
      "X-Include": "–",
      "Round trip": expect.stringMatching(/ m?s$/),
    });
    expect(stdout).toContain("\n\n- it would like previews of 1024 bytes");
  });

  it("says the same in JSON", async () => {
    const { code, stdout } = await icap(["options", services.url("av"), "--json"]);

    expect(code).toBe(0);
    expect(jsonLines(stdout)).toEqual([
      {
        url: services.url("av"),
        service: "test service",
        tag: "tag-1",
        methods: ["RESPMOD"],
        preview: 1024,
        allow204: true,
        maxConnections: 7,
        optionsTtl: 120,
        include: [],
        transfer: { preview: [], ignore: [], complete: [] },
        roundTripMilliseconds: expect.any(Number),
        advice: [expect.stringContaining("previews")],
      },
    ]);
  });

  it.each([
    ["dlp", /it does REQMOD alone: give --method REQMOD/],
    ["dlp", /it does not say Allow: 204/],
    ["blind", /a c-icap without an antivirus engine, which passes everything/],
  ])("advises: %s, %s", async (service, advice) => {
    const { code, stdout } = await icap(["options", services.url(service), "--json"]);

    expect(code).toBe(0);
    expect(jsonLines(stdout)).toMatchObject([{ advice: expect.arrayContaining([expect.stringMatching(advice)]) }]);
  });

  it.each([
    ["a service that is not there", () => services.url("nowhere"), "wrong_service", /ICAP 404: no such service, check the path/],
    ["a server that is not there", () => "icap://127.0.0.1:1/av", "connect_failed", /ECONNREFUSED/],
  ])("%s ends it with 2", async (_, url, code, message) => {
    const plain = await icap(["options", url()]);
    const json = await icap(["options", url(), "--json"]);

    expect(plain).toMatchObject({ code: 2, stdout: "", stderr: expect.stringMatching(message) });
    expect(json).toMatchObject({ code: 2, stderr: "" });
    expect(jsonLines(json.stdout)).toEqual([{ url: url(), error: { code, why: expect.stringMatching(message) } }]);
  });
});

describe("icap options over TLS", () => {
  let directory: string;
  let server: Awaited<ReturnType<typeof tlsServer>>;
  const file = (name: string): string => join(directory, name);
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "mig-options-"));
    await writeFile(file("ca.pem"), certificates.ca);
    await writeFile(file("cert.pem"), certificates.clientA.cert);
    await writeFile(file("key.pem"), certificates.clientA.key);
    server = await tlsServer({ ca: certificates.ca, requestCert: true, rejectUnauthorized: true });
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
    await rm(directory, { recursive: true });
  });
  const identity = (): string[] => ["--cert", file("cert.pem"), "--key", file("key.pem")];

  it("shows how the connection is protected, and comes with the client's own certificate", async () => {
    const { code, stdout, stderr } = await icap(["options", server.url, "--ca", file("ca.pem"), ...identity()]);

    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(rows(stdout)).toMatchObject({
      URL: server.url,
      ISTag: "tag-1",
      TLS: expect.stringMatching(/^TLSv1\.3, TLS_/),
      Certificate: expect.stringMatching(/^.+, issued by .+, until \d{4}-\d\d-\d\d$/),
    });
    expect(server.greetings.every(({ client }) => client !== undefined)).toBe(true);
  });

  it.each([
    ["a server whose certificate nobody vouches for", (): string[] => identity()],
    ["a server whose certificate is another's", () => ["--ca", file("ca.pem"), "--server-name", "other.example", ...identity()]],
    ["a server that does not know the client", () => ["--ca", file("ca.pem")]],
  ])("ends with 2 at %s", async (_, options) => {
    const { code, stdout } = await icap(["options", server.url, ...options(), "--json"]);

    expect(code).toBe(2);
    expect(jsonLines(stdout)).toMatchObject([
      { url: server.url, error: { code: expect.stringMatching(/^(connect_failed|closed_early)$/) } },
    ]);
  });

  it("needs the certificate's key as well", async () => {
    expect(await icap(["options", server.url, "--cert", file("cert.pem")])).toMatchObject({ code: 2, stdout: "" });
  });
});
