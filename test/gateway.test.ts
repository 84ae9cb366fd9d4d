/** The gateway as it is shipped, in the ways in which an operator starts, breaks and stops it. */
import { randomBytes } from "node:crypto";
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { parse } from "yaml";
import { IcapServer, signatureService } from "../icap/index.ts";
import { EICAR } from "../src/scan/canary-samples.ts";
import { startGateway, TOKEN } from "./support/real-gateway.ts";

/** The first bytes of a JPEG file. */
const JPEG = Buffer.from("ffd8ffe000104a46494600010100000100010000ffdb", "hex");

async function scratch(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "mig-operator-"));
  onTestFinished(() => rm(directory, { recursive: true }));
  return directory;
}

/** A script in the manner of the existing scanners: finds EICAR in the file whose path it is given. */
async function script(body: string): Promise<string> {
  const path = join(await scratch(), "scan.sh");
  await writeFile(path, `#!/bin/sh\n${body}\n`);
  await chmod(path, 0o755);
  return path;
}

async function icapServer(): Promise<{ url: string; server: IcapServer }> {
  const handler = signatureService({ signatures: [{ threat: "Eicar", contains: EICAR }], table: { isTag: "demo" } });
  const server = new IcapServer({ services: { scan: handler } });
  onTestFinished(() => server[Symbol.asyncDispose]());
  const { port } = await server.listen(0, "127.0.0.1");
  return { url: `icap://127.0.0.1:${port}/scan`, server };
}

describe("a configuration of the existing Python scanner", () => {
  it("starts although its script is missing: not ready, 503, and ready once the script is there", async () => {
    const directory = await scratch();
    const file = join(import.meta.dirname, "fixtures/config/python-scanner.yaml");
    const document = parse(await readFile(file, "utf8")) as Record<string, Record<string, unknown>>;
    const missing = join(directory, "example.sh");
    const { base_homeserver_url: _homeserver, proxy: _proxy, ...download } = document["download"] ?? {};
    await using gateway = await startGateway({
      ...document,
      // Other ports, folders and servers, since this is another machine; all else is as it stands in the file.
      web: { ...document["web"], port: 0 },
      scan: { ...document["scan"], script: missing, temp_directory: directory },
      download,
      crypto: { ...document["crypto"], request_secret_path: undefined, pickle_path: join(directory, "pickle") },
    });
    expect((await gateway.readiness()).status).toBe(503);
    const mxc = gateway.put(JPEG);
    const answer = await gateway.get(`download/${mxc}`, TOKEN);
    expect([answer.status, answer.json["reason"]]).toEqual([503, "M_UNKNOWN"]);
    await writeFile(missing, "#!/bin/sh\nexit 0\n", { mode: 0o755 });
    expect((await gateway.get(`download/${mxc}`, TOKEN)).status).toBe(200);
    expect((await gateway.get(`download/${gateway.put(Buffer.from("text"))}`, TOKEN)).json["reason"]).toBe("MCS_MIME_TYPE_FORBIDDEN");
    expect(gateway.homeserver.requests.at(-1)?.headers["user-agent"]).toBe("matrix-content-scanner");
  });

  it("its script's exit statuses mean what they meant, and what is no verdict is 503 and not remembered", async () => {
    for (const [body, status] of [
      ["exit 0", 200],
      ["exit 1", 403],
      ["exit 2", 403],
      ["exit 5", 503],
      ["exit 126", 503],
      ["exit 127", 503],
      ["kill -9 $$", 503],
      ["sleep 60", 503],
    ] as const) {
      const path = await script(body);
      await using gateway = await startGateway({
        scan: { script: path, script_timeout: "300ms" },
        result_cache: { exit_codes_to_ignore: [5] },
      });
      const mxc = gateway.put(Buffer.from("text"));
      expect((await gateway.get(`download/${mxc}`, TOKEN)).status, body).toBe(status);
      if (status === 503) {
        await writeFile(path, "#!/bin/sh\nexit 0\n");
        expect((await gateway.get(`download/${mxc}`, TOKEN)).status, body).toBe(200);
      }
    }
  });

  it("its script stands beside ICAP: both must pass a file", async () => {
    const { url } = await icapServer();
    const path = await script('grep -q blocked "$1" && exit 1; exit 0');
    await using gateway = await startGateway({
      scan: { script: path },
      icap: [{ name: "antivirus", urls: [url] }],
    });
    await expect.poll(async () => (await gateway.readiness()).status).toBe(200);
    expect((await gateway.get(`download/${gateway.put(Buffer.from("fine"))}`, TOKEN)).status).toBe(200);
    expect((await gateway.get(`download/${gateway.put(Buffer.from("blocked"))}`, TOKEN)).status).toBe(403);
    expect((await gateway.get(`download/${gateway.put(EICAR)}`, TOKEN)).status).toBe(403);
  });
});

describe("an operator's day", () => {
  it("the key is made at the first start, for its owner alone, and is the same at the next", async () => {
    const path = join(await scratch(), "request_secret");
    const { url } = await icapServer();
    const sections = { icap: [{ name: "antivirus", urls: [url] }], crypto: { request_secret_path: path } };
    const keys: unknown[] = [];
    for (let start = 0; start < 2; start += 1) {
      await using gateway = await startGateway(sections);
      keys.push((await gateway.get("public_key")).json["public_key"]);
    }
    expect(keys[0]).toBe(keys[1]);
    expect(((await stat(path)).mode & 0o777).toString(8)).toBe("600");
    expect((await readFile(path, "utf8")).trim()).toMatch(/^[A-Za-z0-9+/]{43}=?$/);
  });

  it("readiness, liveness and metrics are on the admin listener, and not on the other", async () => {
    const { url } = await icapServer();
    await using gateway = await startGateway({ icap: [{ name: "antivirus", urls: [url] }] });
    await expect.poll(async () => (await gateway.readiness()).status).toBe(200);
    await gateway.get(`download/${gateway.put(EICAR)}`, TOKEN);
    const admin = `http://127.0.0.1:${gateway.gateway.adminAddress.port}`;
    expect((await fetch(`${admin}/health/live`)).status).toBe(200);
    const metrics = await (await fetch(`${admin}/metrics`)).text();
    expect(metrics).toContain('mig_requests_total{route="download",status="403",outcome="infected"} 1');
    expect(metrics).toContain('mig_scanner_ready{scanner="antivirus"} 1');
    for (const path of ["/health/ready", "/metrics"]) expect((await fetch(gateway.url + path)).status).toBe(404);
  });

  it("shutting down: not ready, no new work, and whoever is being answered gets all of it", async () => {
    const { url } = await icapServer();
    await using gateway = await startGateway({ icap: [{ name: "antivirus", urls: [url] }] });
    await expect.poll(async () => (await gateway.readiness()).status).toBe(200);
    const bytes = randomBytes(30_000_000);
    const answer = gateway.get(`download/${gateway.put(bytes)}`, TOKEN);
    await expect.poll(() => gateway.homeserver.requests.length).toBe(1);
    const ended = gateway.gateway.shutdown();
    expect(gateway.gateway.readiness()).toMatchObject({ ready: false });
    const got = await answer;
    expect([got.status, got.body.equals(bytes)]).toEqual([200, true]);
    await ended;
    await expect(fetch(`${gateway.url}/x`)).rejects.toThrow();
  });

  it("shutting down has a limit: what is not done by then is cut off", async () => {
    const { url } = await icapServer();
    await using gateway = await startGateway({ icap: [{ name: "antivirus", urls: [url] }] });
    await expect.poll(async () => (await gateway.readiness()).status).toBe(200);
    gateway.homeserver.behaviour = { stall: "headers" };
    const answer = gateway.get(`download/${gateway.put(Buffer.from("text"))}`, TOKEN).then(
      ({ status }) => status,
      () => "cut off",
    );
    await expect.poll(() => gateway.homeserver.requests.length).toBe(1);

    const limit = new AbortController();
    const timer = vi.spyOn(AbortSignal, "timeout").mockReturnValueOnce(limit.signal);
    onTestFinished(() => timer.mockRestore());
    const ended = gateway.gateway.shutdown();
    expect(timer).toHaveBeenCalledOnce();
    limit.abort();
    expect(["cut off", 503]).toContain(await answer);
    await ended;
  });

  it("a start that fails leaves nothing listening", async () => {
    const { url } = await icapServer();
    const icap = [{ name: "antivirus", urls: [url] }];
    await using first = await startGateway({ icap });
    const { port } = first.gateway.address;
    await expect(startGateway({ icap, web: { port } })).rejects.toMatchObject({ code: "EADDRINUSE" });
    await expect(startGateway({ icap, scan: { temp_directory: "/nowhere/at/all" } })).rejects.toMatchObject({ code: "ENOENT" });
  });

  it("empty media is media too", async () => {
    const { url } = await icapServer();
    await using gateway = await startGateway({ icap: [{ name: "antivirus", urls: [url] }] });
    await expect.poll(async () => (await gateway.readiness()).status).toBe(200);
    const mxc = gateway.put(Buffer.alloc(0));
    for (const round of ["scanned", "known"]) {
      const answer = await gateway.get(`download/${mxc}`, TOKEN);
      expect([answer.status, answer.body.length], round).toEqual([200, 0]);
    }
  });
});
