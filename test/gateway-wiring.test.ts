/** From the configuration to the wire: what a service gets to see of each of its keys. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TLSSocket } from "node:tls";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { stringify } from "yaml";
import { icap } from "../src/config/icap-section.ts";
import { loadConfig } from "../src/config/load.ts";
import { certificates } from "./icap/support/certificates.ts";
import { CLEAN, OPTIONS, scriptedServer } from "./icap/support/scripted-server.ts";
import { type RealGateway, startGateway, TOKEN } from "./support/real-gateway.ts";
import { seeing } from "./support/scripted-antivirus.ts";

const PNG = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==", "base64");
const MIB = 1024 * 1024;

/** A key's name or a path of names, in full. */
function leavesOf(value: unknown, path = ""): [path: string, value: string][] {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return [[path, JSON.stringify(value)]];
  return Object.entries(value).flatMap(([key, inner]) => leavesOf(inner, path === "" ? key : `${path}.${key}`));
}

/** Of fields of a head. */
const line = (text: string): string => `\r\n${text}\r\n`;

describe("a service whose every key is away from its default", () => {
  let directory: string;
  let service: Record<string, unknown>;
  let server: Awaited<ReturnType<typeof scriptedServer>>;
  let gateway: RealGateway;
  let greeting: { readonly name: unknown; readonly client: unknown };
  const heads: string[] = [];
  const requests: string[] = [];
  let media = "";

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "mig-wiring-"));
    const file = async (name: string, content: string): Promise<string> => {
      await writeFile(join(directory, name), content, { mode: 0o700 });
      return join(directory, name);
    };
    server = await scriptedServer(
      {
        options: OPTIONS.replace("RESPMOD", "REQMOD").replace(
          "Allow",
          "Preview: 1000000\r\nTransfer-Preview: *\r\nX-Include: X-Server-IP, X-Whose\r\nAllow",
        ),
        optionsHead: (head, socket) => {
          const secure = socket as TLSSocket;
          greeting = { name: secure.servername, client: secure.getPeerCertificate().subject?.CN };
          heads.push(head);
        },
        ...seeing(({ socket, received }) => {
          if (received().includes("\r\nX-Client-IP:")) media = received();
          socket.write(CLEAN);
        }),
        begin: ({ received }) => requests.push(received().slice(0, 2000)),
      },
      { ...certificates.server, ca: certificates.ca, requestCert: true, rejectUnauthorized: true },
    );
    service = {
      name: "dlp-7",
      // Without a path, which is then the profile's for this method.
      urls: [server.url.replace("/scan", "")],
      profile: "f-secure",
      method: "REQMOD",
      direction: "download",
      required: false,
      canary: ["png"],
      prove_size: false,
      blocked_headers: ["X-Never"],
      describe_type: true,
      preview: "required",
      transfer_lists: "trusted",
      headers: { "X-Tenant": "chat", "X-Site": "north" },
      context: {
        client_ip: "always",
        server_ip: "asked",
        user: "asked",
        user_header: "X-Whose",
        user_format: "WinNT://{server}/{localpart}",
        user_encoding: "plain",
      },
      max_connections: 5,
      max_waiting: 6,
      connect_timeout: "6s",
      write_timeout: "7s",
      answer_timeout: "8s",
      idle_timeout: "9s",
      total_timeout: "10s",
      suspend: { failures: 2, within: "11s", pause: "12s", max_pause: "13s" },
      tls: {
        ca_path: await file("ca.pem", certificates.ca),
        cert_path: await file("cert.pem", certificates.clientA.cert),
        key_path: await file("key.pem", certificates.clientA.key),
        server_name: "av.example.test",
        min_version: "TLSv1.3",
      },
      username: "gateway",
      password_path: await file("password", "open sesame\n"),
    };
    const script = await file("scan.sh", "#!/bin/sh\nexit 0\n");
    gateway = await startGateway({ scan: { script, max_file_size: "2MiB" }, icap: [service] });
    await vi.waitFor(() => expect(gateway.log()).toContain("caught its canaries"));
    expect((await gateway.get(`download/${gateway.put(PNG)}`, TOKEN)).status).toBe(200);
    await vi.waitFor(() => expect(media).not.toBe(""));
  });
  afterAll(async () => {
    await gateway?.[Symbol.asyncDispose]();
    await server?.[Symbol.asyncDispose]();
    await rm(directory, { recursive: true });
  });

  const load = async (one: object): Promise<[string, string][]> => {
    const path = join(directory, "config.yaml");
    const script = join(directory, "scan.sh");
    await writeFile(path, stringify({ scan: { script }, icap: [one], download: { base_homeserver_url: "http://127.0.0.1" } }));
    return leavesOf((await loadConfig(path)).config.icap[0]);
  };

  it("has every key that there is", async () => {
    const minimal = { name: "av", urls: ["icaps://127.0.0.1/x"], tls: {} };
    const defaults = await load(minimal);
    const set = new Map(await load(service));
    for (const [path, value] of defaults) if (path !== "headers") expect(set.get(path), path).not.toBe(value);
    // Some have no default.
    expect(Object.keys(service).toSorted()).toEqual(Object.keys(icap.out.element.in.shape).toSorted());
  });

  const authority = (): string => new URL(server.url.replace("icaps:", "https:")).host;

  it.each<[key: string, expected: () => string]>([
    ["urls, profile, method", () => `REQMOD icaps://${authority()}/reqmod ICAP/1.0\r\n`],
    ["headers", () => line("X-Tenant: chat\r\nX-Site: north")],
    ["username, password_path", () => line(`Proxy-Authorization: Basic ${Buffer.from("gateway:open sesame").toString("base64")}`)],
    ["preview", () => line(`Preview: ${PNG.length}`)],
    ["context.client_ip", () => line("X-Client-IP: 127.0.0.1")],
    ["context.server_ip", () => line("X-Server-IP: 127.0.0.1")],
    ["context.user and how it is written", () => line("X-Whose: WinNT://example.org/alice")],
    ["describe_type: the name", () => line("POST http://media.invalid/media.png HTTP/1.1").slice(2)],
    ["describe_type: the type", () => line("Content-Type: image/png")],
    ["the media itself", () => PNG.toString("latin1")],
  ])("is sent %s with media", (_, expected) => {
    expect(media).toContain(expected());
  });

  it("is sent what is not about the asker with OPTIONS as well", () => {
    expect(heads[0]).toContain(`OPTIONS icaps://${authority()}/reqmod ICAP/1.0\r\n`);
    for (const field of ["X-Tenant: chat", "X-Site: north", "Proxy-Authorization: Basic "]) expect(heads[0]).toContain(`\r\n${field}`);
    expect(heads[0]).not.toContain("X-Client-IP");
  });

  it("is met by TLS as tls says: the authority, the name, and the client's own certificate", () => {
    expect(greeting).toEqual({ name: "av.example.test", client: "client-a" });
  });

  it("is sent the canaries that it is to catch, and no large ones", () => {
    const named = requests.map((text) => /\/(media\.\w+) HTTP/.exec(text)?.[1]);
    expect(named.slice(0, 2)).toEqual(["media.txt", "media.png"]);
    expect(named).not.toContain("media.pdf");
    const sizes = requests.map((text) => Number(/Content-Length: (\d+)/.exec(text)?.[1]));
    expect(Math.max(...sizes)).toBeLessThan(MIB);
  });

  it("goes by its name, and decides nothing", async () => {
    expect(gateway.log()).toContain('"scanner":"dlp-7"');
    expect(gateway.gateway.readiness().ready).toBe(true);
  });
});
