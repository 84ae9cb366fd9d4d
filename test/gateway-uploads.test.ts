/** What of uploads a configuration turns on, and whom it has asked. */
import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, it, onTestFinished } from "vitest";
import { type IcapReply, type IcapRequest, IcapServer } from "../icap/index.ts";
import { BASE_PATH } from "../src/http/app.ts";
import { type RealGateway, startGateway, TOKEN } from "./support/real-gateway.ts";
import { upload } from "./support/upload.ts";

const BYTES = Buffer.from("a harmless text\n");
const UPLOAD = "/_matrix/media/v3/upload";

/** A service that passes everything, and what it was asked. */
async function service(answer: IcapReply = { status: 204 }): Promise<{ readonly url: string; readonly asked: IcapRequest[] }> {
  const asked: IcapRequest[] = [];
  const server = new IcapServer({
    services: {
      x: {
        table: { isTag: "1", methods: ["REQMOD", "RESPMOD"] },
        handle: async (request) => {
          asked.push(request);
          await Array.fromAsync(request.body);
          return answer;
        },
      },
    },
  });
  onTestFinished(() => server[Symbol.asyncDispose]());
  const { port } = await server.listen(0, "127.0.0.1");
  return { url: `icap://127.0.0.1:${port}/x`, asked };
}

async function gatewayOf(sections: Readonly<Record<string, object>>): Promise<RealGateway> {
  const gateway = await startGateway(sections);
  onTestFinished(() => gateway[Symbol.asyncDispose]());
  await expect.poll(async () => (await gateway.readiness()).status).toBe(200);
  return gateway;
}

const post = async (gateway: RealGateway, path: string, token?: string): Promise<unknown> => {
  const { status, json } = await upload(`${gateway.url}${path}`, BYTES, { token });
  return [status, json["errcode"] ?? json["reason"] ?? json["clean"]];
};

async function check(gateway: RealGateway, token?: string): Promise<unknown> {
  const form = new FormData();
  form.set("file", new Blob([Uint8Array.from(BYTES)]));
  const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const response = await fetch(`${gateway.url}${BASE_PATH}/scan_file`, { method: "POST", body: form, headers });
  const json = (await response.json()) as Record<string, unknown>;
  return [response.status, json["errcode"] ?? json["reason"] ?? json["clean"]];
}

describe("a configuration", () => {
  it("that says nothing of uploads has none, and checks files for users of the homeserver", async () => {
    const { url } = await service();
    const gateway = await gatewayOf({ icap: [{ name: "av", urls: [url], canary: [] }] });
    for (const path of [UPLOAD, "/_matrix/media/v1/create"]) expect(await post(gateway, path, TOKEN)).toEqual([404, "M_UNRECOGNIZED"]);
    expect(gateway.homeserver.uploads).toEqual([]);
    expect(await check(gateway, TOKEN)).toEqual([200, true]);
    expect(await check(gateway)).toEqual([401, "M_MISSING_TOKEN"]);
    expect(await check(gateway, "stranger")).toEqual([401, "M_UNKNOWN_TOKEN"]);
  });

  it("turns the check of files off, or lets everybody have it", async () => {
    const { url } = await service();
    const icap = [{ name: "av", urls: [url], canary: [] }];
    expect(await check(await gatewayOf({ icap, scan_file: { enabled: false } }), TOKEN)).toEqual([404, "M_UNRECOGNIZED"]);
    const open = await gatewayOf({ icap, scan_file: { require_token: false } });
    expect([await check(open), await check(open, "stranger")]).toEqual([
      [200, true],
      [200, true],
    ]);
  });

  it("has each service asked about its direction, by its method, and the homeserver sent what the operator adds", async () => {
    const [both, up, down] = await Promise.all([service(), service(), service()]);
    const gateway = await gatewayOf({
      icap: [
        { name: "both", urls: [both.url], canary: [] },
        { name: "up", urls: [up.url], canary: [], direction: "upload", method: "REQMOD" },
        { name: "down", urls: [down.url], canary: [], direction: "download" },
      ],
      upload: { enabled: true },
      download: { additional_headers: { "X-Gateway": "yes" } },
    });
    const asked = (): unknown => [both, up, down].map((one) => one.asked.splice(0).map(({ method }) => method));
    asked();
    expect(await post(gateway, UPLOAD, TOKEN)).toEqual([200, undefined]);
    expect(gateway.homeserver.uploads[0]).toMatchObject({ bytes: BYTES, headers: { "x-gateway": "yes" } });
    expect(asked()).toEqual([["RESPMOD"], ["REQMOD"], []]);
    await gateway.get(`download/${gateway.put(Buffer.from("another text"))}`, TOKEN);
    expect(asked()).toEqual([["RESPMOD"], [], ["RESPMOD"]]);
    expect(await check(gateway, TOKEN)).toEqual([200, true]);
    expect(asked()).toEqual([["RESPMOD"], ["REQMOD"], ["RESPMOD"]]);
  });

  it.each([
    ["only uploads can't be scanned", "upload", true, 200],
    ["only downloads can't be scanned", "download", true, 200],
    ["downloads can't be scanned, and there are no uploads", "download", false, 503],
    ["neither can be scanned", "both", true, 503],
  ])("tells that it is ready while one direction works: %s", async (_what, direction, enabled, status) => {
    const [antivirus, dlp] = await Promise.all([service(), service()]);
    const gateway = await startGateway({
      icap: [
        { name: "av", urls: [antivirus.url], canary: [] },
        { name: "dlp", urls: [dlp.url.replace("/x", "/not-there")], canary: [], direction },
      ],
      upload: { enabled },
    });
    onTestFinished(() => gateway[Symbol.asyncDispose]());
    const problems = expect.arrayContaining([expect.stringMatching(/^dlp: .*404/)]);
    await expect.poll(() => gateway.readiness()).toEqual({ status, problems });
    const answers = {
      download: (await gateway.get(`download/${gateway.put(BYTES)}`, TOKEN)).status,
      upload: await post(gateway, UPLOAD, TOKEN),
    };
    expect(answers.download).toBe(direction === "upload" ? 200 : 503);
    if (enabled) expect(answers.upload).toEqual(direction === "download" ? [200, undefined] : [503, expect.anything()]);
  });

  it("does not make downloads wait for their last byte because of a narrow service that is asked about uploads alone", async () => {
    const [antivirus, dlp] = await Promise.all([service(), service()]);
    const gateway = await gatewayOf({
      icap: [
        { name: "av", urls: [antivirus.url], canary: [] },
        { name: "dlp", urls: [dlp.url], canary: [], direction: "upload", max_connections: 1 },
      ],
      upload: { enabled: true },
    });
    antivirus.asked.length = 0;
    const rest = Promise.withResolvers<void>();
    onTestFinished(() => rest.resolve());
    gateway.homeserver.behaviour = { stallAfter: 2 << 20, resume: rest.promise };
    const answer = gateway.get(`download/${gateway.put(Buffer.alloc(3 << 20, "text "))}`, TOKEN);
    await expect.poll(() => antivirus.asked.length, { timeout: 10_000 }).toBe(1);
    rest.resolve();
    expect((await answer).status).toBe(200);
  });

  it("divides the connections to the homeserver among workers, and counts all that is at work", async () => {
    const { url } = await service();
    const workers = 64;
    const gateway = await gatewayOf({
      icap: [{ name: "av", urls: [url], canary: [], max_connections: workers }],
      web: { workers },
      scan: { max_file_size: "10MiB", spool: { memory: "128MiB", disk: "2GiB" }, max_per_client: 64 },
      upload: { enabled: true },
      transparent: { enabled: true },
    });
    const { host, port } = gateway.gateway.adminAddress;
    const active = async (): Promise<string> => (await fetch(`http://${host}:${port}/metrics`)).text();
    const { homeserver } = gateway;
    const most = 256 / workers;
    const several = Array.from({ length: 10 }, (_, index) => index);

    const held = Promise.withResolvers<void>();
    onTestFinished(() => held.resolve());
    homeserver.hold = held.promise;
    const downloads = several.map((index) => gateway.get(`download/${gateway.put(Buffer.from(`text ${index}`))}`, TOKEN));
    await expect.poll(active).toContain('mig_requests{state="active"} 10');
    const questions = several.map(() => gateway.get("/_matrix/client/v1/media/config", TOKEN));
    await expect.poll(active).toContain('mig_requests{state="active"} 20');
    expect(await homeserver.connections()).toBe(most);
    held.resolve();
    for (const { status } of await Promise.all([...downloads, ...questions])) expect(status).toBe(200);

    const stored = Promise.withResolvers<void>();
    onTestFinished(() => stored.resolve());
    homeserver.uploadBehaviour = { hold: stored.promise };
    const uploads = several.map(() => post(gateway, UPLOAD, TOKEN));
    await expect.poll(() => homeserver.uploads.length).toBe(most);
    for (let turns = 0; turns < 100; turns += 1) await turn();
    expect(homeserver.uploads.length).toBe(most);
    stored.resolve();
    for (const answer of await Promise.all(uploads)) expect(answer).toEqual([200, undefined]);
  });

  it("that hands on what scanners send in a file's stead does so with downloads only", async () => {
    const body = Buffer.from("GIF89a, made anew");
    const fields = [["Content-Length", String(body.length)]] as const;
    const made = { status: 200, http: { startLine: "HTTP/1.1 200 OK", fields, body } };
    const cdr = await service(made);
    const gateway = await gatewayOf({
      icap: [{ name: "cdr", urls: [cdr.url], canary: [] }],
      scan: { on_modified: "deliver" },
      upload: { enabled: true },
    });
    expect(await post(gateway, UPLOAD, TOKEN)).toEqual([403, "M_FORBIDDEN"]);
    expect(gateway.homeserver.uploadedBytes).toBe(0);
  });

  it("ends what was permitted to a token when the homeserver refuses it, whatever was asked", async () => {
    const { url } = await service();
    const gateway = await gatewayOf({
      icap: [{ name: "av", urls: [url], canary: [] }],
      upload: { enabled: true },
      transparent: { enabled: true },
      download: { authorization_ttl: "1h" },
    });
    const mxc = gateway.put(BYTES);
    const scanned = async (): Promise<number> => (await gateway.get(`scan/${mxc}`, TOKEN)).status;
    const refusal = { status: 401, body: { errcode: "M_UNKNOWN_TOKEN", error: "Logged out" } };
    const refusals: Readonly<Record<string, () => Promise<unknown>>> = {
      config: async () => (await gateway.get("/_matrix/client/v1/media/config", TOKEN)).status,
      preview: async () => (await gateway.get("/_matrix/client/v1/media/preview_url?url=http://x.test/", TOKEN)).status,
      create: async () => (await gateway.post("/_matrix/media/v1/create", {}, TOKEN)).status,
    };
    for (const [name, ask] of Object.entries(refusals)) {
      gateway.homeserver.addToken(TOKEN);
      expect(await scanned(), name).toBe(200);
      gateway.homeserver.addToken(TOKEN, "expired");
      const before = gateway.homeserver.requests.length;
      expect([await scanned(), gateway.homeserver.requests.length], name).toEqual([200, before]);
      expect(await ask(), name).toBe(401);
      expect(await scanned(), name).toBe(401);
    }
    gateway.homeserver.addToken(TOKEN);
    expect(await scanned()).toBe(200);
    // Between the look at the token and the last byte.
    gateway.homeserver.uploadBehaviour = { answer: refusal };
    expect(await post(gateway, UPLOAD, TOKEN)).toEqual([401, "M_UNKNOWN_TOKEN"]);
    gateway.homeserver.addToken(TOKEN, "expired");
    expect(await scanned()).toBe(401);
  });

  it("counts and tells of uploads", async () => {
    const { url } = await service();
    const gateway = await gatewayOf({ icap: [{ name: "av", urls: [url], canary: [] }], upload: { enabled: true } });
    const { json } = await upload(`${gateway.url}${UPLOAD}`, BYTES, { token: TOKEN });
    const [mediaId = ""] = String(json["content_uri"]).split("/").slice(-1);
    const { host, port } = gateway.gateway.adminAddress;
    await expect
      .poll(async () => (await fetch(`http://${host}:${port}/metrics`)).text())
      .toContain('mig_requests_total{route="upload",status="200",outcome="ok"} 1');
    const line =
      gateway
        .log()
        .split("\n")
        .find((text) => text.includes('"route":"upload"')) ?? "{}";
    expect(JSON.parse(line)).toMatchObject({ method: "POST", status: 200, size: BYTES.length, verdict: "clean", via: "scan" });
    // What is uploaded may be encrypted: where it lies is for its readers to know.
    expect(mediaId).toMatch(/^\w+$/);
    for (const secret of [TOKEN, mediaId]) expect(line).not.toContain(secret);
  });
});
