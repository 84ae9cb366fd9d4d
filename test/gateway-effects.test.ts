/** What becomes of media, of a service's answers and of the service itself when a key of the configuration is not at its default. */
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { certificates } from "./icap/support/certificates.ts";
import { CLEAN, OPTIONS, type Peer, type Script, scriptedServer } from "./icap/support/scripted-server.ts";
import { type RealGateway, startGateway, TOKEN } from "./support/real-gateway.ts";
import { hasEicar, INFECTED, seeing, toMedia } from "./support/scripted-antivirus.ts";

const PNG = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==", "base64");
const GIF = Buffer.from("R0lGODlhAQABAAAAACwAAAAAAQABAAACAkwBADs=", "base64");
const MEDIA = Buffer.from("the media that is asked for");
const FAILED = "ICAP/1.0 500 Server error\r\n\r\n";
const MIB = 1024 * 1024;

/** A gateway in front of services that know no more of canaries than that the harmless file is clean. */
async function gatewayOf(service: object, scan: object = {}): Promise<RealGateway> {
  const gateway = await startGateway({ scan, icap: [{ name: "av", canary: [], ...service }] });
  onTestFinished(() => gateway[Symbol.asyncDispose]());
  return gateway;
}

async function ready(gateway: RealGateway): Promise<void> {
  await expect.poll(async () => (await gateway.readiness()).status).toBe(200);
}

async function serverOf(script: Script, tls?: Parameters<typeof scriptedServer>[1]): ReturnType<typeof scriptedServer> {
  const server = await scriptedServer(script, tls);
  onTestFinished(() => server[Symbol.asyncDispose]());
  return server;
}

const statusOf = async (gateway: RealGateway, bytes: Uint8Array): Promise<number> =>
  (await gateway.get(`download/${gateway.put(bytes)}`, TOKEN)).status;

describe("a key's effect", () => {
  it("blocked_headers: a field means that the media is blocked", async () => {
    const { url } = await serverOf(toMedia(({ socket }) => socket.write(CLEAN.replace("\r\n\r\n", "\r\nX-Our-Word: 1\r\n\r\n"))));
    const gateway = await gatewayOf({ urls: [url], blocked_headers: ["X-Our-Word"] });
    await ready(gateway);
    expect(await statusOf(gateway, MEDIA)).toBe(403);
  });

  it("transfer_lists: media that the service does not want is not sent to it", async () => {
    const server = await serverOf({ options: OPTIONS.replace("Allow", "Transfer-Ignore: png\r\nAllow"), ...seeing() });
    const gateway = await gatewayOf({ urls: [server.url], transfer_lists: "trusted", describe_type: true });
    await ready(gateway);
    const { requests } = server.count;
    expect(await statusOf(gateway, PNG)).toBe(200);
    expect(server.count.requests).toBe(requests);
    expect(await statusOf(gateway, MEDIA)).toBe(200);
    expect(server.count.requests).toBe(requests + 1);
  });

  it("max_connections, max_waiting: so many scans at once, one connection being kept for canaries, and nobody waits in line", async () => {
    const held: Peer[] = [];
    const { url } = await serverOf(toMedia((peer) => held.push(peer)));
    const gateway = await gatewayOf({ urls: [url], max_connections: 3, max_waiting: 0 });
    await ready(gateway);
    const asked = ["one", "two"].map((text) => statusOf(gateway, Buffer.from(text)));
    await expect.poll(() => held.length).toBe(2);
    expect(await statusOf(gateway, Buffer.from("three"))).toBe(503);
    for (const { socket } of held) socket.write(CLEAN);
    expect(await Promise.all(asked)).toEqual([200, 200]);
  });

  it("connect_timeout: a server that never finishes its greeting", async () => {
    const silent = createServer((socket) => socket.on("error", () => undefined)).listen(0, "127.0.0.1");
    await once(silent, "listening");
    onTestFinished(() => void silent.close());
    const { port } = silent.address() as AddressInfo;
    const gateway = await gatewayOf({ urls: [`icaps://127.0.0.1:${port}/scan`], connect_timeout: "70ms" });
    await expect.poll(async () => (await gateway.readiness()).problems.join()).toMatch(/cannot connect to .* within 70 ms/);
  });

  it.each<[key: string, value: string, why: string, script: Script, media: Buffer]>([
    ["write_timeout", "300ms", "the server took nothing more within 300 ms", { begin: slow }, Buffer.alloc(16 * MIB)],
    ["answer_timeout", "300ms", "no answer came within 300 ms", {}, MEDIA],
    ["total_timeout", "400ms", "the whole answer did not come within 400 ms", {}, MEDIA],
  ])("%s: a scan ends after that", async (key, value, why, script, media) => {
    const { url } = await serverOf({ ...toMedia(() => undefined), ...script });
    const gateway = await gatewayOf({ urls: [url], [key]: value });
    await ready(gateway);
    expect(await statusOf(gateway, media)).toBe(503);
    expect(gateway.log()).toContain(why);
  });

  it("idle_timeout: connections that nobody needs are closed", async () => {
    const server = await serverOf(seeing());
    const gateway = await gatewayOf({ urls: [server.url], idle_timeout: "50ms" });
    await ready(gateway);
    // Below the default.
    await expect.poll(() => server.count.open, { timeout: 3000 }).toBe(0);
  });

  it("tls.min_version: an older one is not spoken", async () => {
    const directory = await mkdtemp(join(tmpdir(), "mig-effects-"));
    onTestFinished(() => rm(directory, { recursive: true }));
    await writeFile(join(directory, "ca.pem"), certificates.ca);
    const { url } = await serverOf(seeing(), { ...certificates.server, maxVersion: "TLSv1.2" });
    const tls = { ca_path: join(directory, "ca.pem"), min_version: "TLSv1.3" };
    const gateway = await gatewayOf({ urls: [url], tls });
    await expect.poll(async () => (await gateway.readiness()).problems.join()).toContain("ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION");
  });

  it.each([
    [{ failures: 2, within: "7s", pause: "3s", max_pause: "1h" }, "2 scans failed within 7 s, so it is left alone for 3 s"],
    [{ failures: 1, within: "9s", pause: "1h", max_pause: "4s" }, "1 scans failed within 9 s, so it is left alone for 4 s"],
  ])("suspend: %j", async (suspend, why) => {
    const [failing, working] = [await serverOf(toMedia(({ socket }) => socket.write(FAILED))), await serverOf(seeing())];
    const gateway = await gatewayOf({ urls: [failing.url, working.url], suspend });
    await expect.poll(async () => (await gateway.readiness()).problems).toEqual([]);
    for (let scan = 1; scan <= suspend.failures; scan += 1) {
      expect(gateway.log()).not.toContain("left alone");
      expect(await statusOf(gateway, Buffer.from(`media ${scan}`))).toBe(200);
    }
    expect(gateway.log()).toContain(why);
    expect((await gateway.readiness()).problems).toEqual([expect.stringContaining(why)]);
  });

  it("canary_interval: the service is asked again and again", async () => {
    const server = await serverOf(seeing());
    await gatewayOf({ urls: [server.url] }, { canary_interval: "100ms" });
    await expect.poll(() => server.count.requests).toBeGreaterThan(2);
  });

  it("required: false: what it says of media is told and counted, and that is all", async () => {
    const [adviser, decider] = [await serverOf(toMedia(({ socket }) => socket.write(INFECTED))), await serverOf(seeing())];
    const gateway = await startGateway({
      icap: [
        { name: "adviser", urls: [adviser.url], canary: [], required: false },
        { name: "decider", urls: [decider.url], canary: [] },
      ],
    });
    onTestFinished(() => gateway[Symbol.asyncDispose]());
    await expect.poll(async () => (await gateway.readiness()).problems).toEqual([]);
    expect(await statusOf(gateway, MEDIA)).toBe(200);
    await expect.poll(() => gateway.log()).toMatch(/"scanner":"adviser","outcome":"infected","detail":"Eicar".*an advisory scanner/);
    const metrics = await fetch(`http://127.0.0.1:${gateway.gateway.adminAddress.port}/metrics`);
    expect(await metrics.text()).toContain('mig_advice_total{scanner="adviser",outcome="infected"} 1');
  });

  it.each([
    ["deliver", 200],
    ["block", 403],
  ])("on_modified: %s", async (onModified, status) => {
    const head = `HTTP/1.1 200 OK\r\nContent-Length: ${GIF.length}\r\n\r\n`;
    const sanitised = `ICAP/1.0 200 OK\r\nX-Response-Info: Allowed\r\nEncapsulated: res-hdr=0, res-body=${head.length}\r\n\r\n${head}`;
    const { url } = await serverOf(
      toMedia(({ socket, received }) => {
        const isGif = received().includes(GIF.toString("latin1"));
        socket.write(isGif ? CLEAN : `${sanitised}${GIF.length.toString(16)}\r\n${GIF.toString("latin1")}\r\n0\r\n\r\n`, "latin1");
      }),
    );
    const gateway = await gatewayOf({ urls: [url], profile: "metadefender" }, { on_modified: onModified });
    await ready(gateway);
    const answer = await gateway.get(`download/${gateway.put(PNG)}`, TOKEN);
    expect([answer.status, answer.body.equals(GIF)]).toEqual([status, status === 200]);
  });

  it.each([
    [true, 503],
    [false, 200],
  ])("prove_size: %s, for media beyond what the service is proven to scan", async (provesSize, status) => {
    const shortSighted: Script = {
      complete: ({ socket, received }) => {
        // Some 2 MiB, heads included.
        socket.write(hasEicar(received().slice(0, 2 * MIB)) ? INFECTED : CLEAN);
      },
    };
    const { url } = await serverOf(shortSighted);
    const gateway = await gatewayOf({ urls: [url], canary: ["plain"], prove_size: provesSize }, { max_file_size: "4MiB" });
    await ready(gateway);
    const answer = await gateway.get(`download/${gateway.put(Buffer.alloc(3 * MIB, "media"))}`, TOKEN);
    expect(answer.status).toBe(status);
    if (!provesSize) return;
    expect(answer.json["info"]).toBe("The media is larger than the scanner is proven to scan");
    expect(gateway.log()).toMatch(/"outcome":"beyond_proof"/);
    expect(gateway.log()).toMatch(/"wanted":4194304,"advice":"it is proven to scan files up to 1\.\d+ MiB only/);
    expect((await gateway.readiness()).problems.join()).toContain("it is proven to scan files up to");
    expect(await statusOf(gateway, Buffer.alloc(MIB, "media"))).toBe(200);
  });
});

/** Takes the beginning of what is large, and no more. */
function slow({ socket, received }: Peer): void {
  if (received().includes(`Content-Length: ${16 * MIB}`)) socket.pause();
}
