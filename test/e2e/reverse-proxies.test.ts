/** The reverse proxies' configurations of docs/deployment.md: which requests reach the gateway, which Synapse, and which nobody. */
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startCaddy } from "../support/caddy.ts";
import type { MediaMark, MediaPaths, Upstreams } from "../support/deployment.ts";
import { startHaProxy } from "../support/haproxy.ts";
import { startNginx } from "../support/nginx.ts";
import type { TlsPeer } from "../support/peers/tls-peer.ts";
import { type RawAnswer, type RawOptions, rawRequest } from "../support/raw-request.ts";
import { TRAVERSALS } from "./traversals.ts";

/** What one of the two was asked. */
interface Asked {
  readonly who: string;
  readonly method: string;
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly size: number;
}

const servers = new AsyncDisposableStack();
let upstreams: Upstreams;

/** Answers with what it was asked. */
async function listen(who: string): Promise<string> {
  const server = createServer((request, response) => {
    let size = 0;
    request.on("data", (chunk: Buffer) => (size += chunk.length));
    request.on("end", () => {
      const { method, url: target, headers } = request;
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ who, method, target, headers, size }));
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  servers.defer(() => server.closeAllConnections());
  servers.defer(() => void server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

beforeAll(async () => {
  upstreams = { gateway: await listen("gateway"), synapse: await listen("synapse") };
});
afterAll(() => servers.disposeAsync());

const MEDIA = "example.org/AQwafuaFswefuhsfAFAgsw";
const SCANNER = ["/_matrix/media_proxy/unstable/public_key", `/_matrix/media_proxy/unstable/download/${MEDIA}`];
const MEDIA_PATHS = [
  "/_matrix/client/v1/media",
  "/_matrix/client/unstable/org.matrix.msc3916/media",
  "/_matrix/media/r0",
  "/_matrix/media/v1",
  "/_matrix/media/v3",
].flatMap((path) => [
  `${path}/download/${MEDIA}`,
  `${path}/download/${MEDIA}/a%20name%2e.txt?timeout_ms=1`,
  `${path}/thumbnail/${MEDIA}?width=1&height=1`,
]);
/** Media paths that Synapse has beside those, and some that it does not have. */
const OTHER_MEDIA_PATHS = [
  "/_matrix/client/v1/media/config",
  "/_matrix/client/v1/media/preview_url?url=https%3A%2F%2Fexample.org%2F..%2Fx/../y",
  "/_matrix/media/v3/config",
  "/_matrix/media/v3/nobody_thought_of_it/x",
  "/_matrix/media/v4/download/x/y",
  "/_matrix/media/v3/upload/x",
  "/_matrix/media/v3/upload/x/y/z",
  "/_matrix/media/v3/uploads",
  "/_matrix/media/",
];
const UPLOADS = [
  ...["r0", "v1", "v3"].map((version) => ["POST", `/_matrix/media/${version}/upload?filename=a%2Fb`] as const),
  ["PUT", `/_matrix/media/v3/upload/${MEDIA}`] as const,
  ["POST", "/_matrix/media/v1/create"] as const,
];
/** Uploads to whoever decodes a path before it looks at it. */
const SPELLED_UPLOADS = [
  "/_matrix/media/v3/%75pload",
  "/_matrix/media/v3/up%6Coad",
  "/_matrix/media/v3/up%6coad?filename=x",
  "/_matrix/media/r0%2fupload",
  "/_matrix/media/v%33/upload",
  "/_matrix/%6dedia/v3/upload",
  "/_matrix/media/v1/%63reate",
  `/_matrix/media/v3/%75pload/${MEDIA}`,
  "/_matrix/media/./v3/%75pload",
  "/_matrix/client/../media/v3/upload",
  "/_matrix/client/%2e%2e/media/v3/%75pload",
  "/_matrix/client/v3/..%2f..%2fmedia/v3/upload",
];
const SYNAPSE = [
  "/_matrix/client/versions",
  "/_matrix/client/v3/sync?since=..%2f",
  "/_matrix/client/v3/rooms/!a:example.org/event/%24x%2Fy..z",
  "/_matrix/client/v3/directory/room/%23a%2F.b:example.org",
  "/_matrix/client/v1/rooms/!a:example.org/relations/$x",
  `/_matrix/federation/v1/media/download/AQwafuaFswefuhsfAFAgsw`,
  "/_matrix/federation/v1/media/thumbnail/x?width=1&height=1",
  "/_matrix/key/v2/server",
  "/_synapse/client/pick_username",
];

const asked = ({ status, json }: RawAnswer): Partial<Asked> => (json === undefined ? { who: `nobody: ${status}` } : (json as Asked));

type Start = (mediaPaths: MediaPaths, scansUploads: boolean, marks?: readonly MediaMark[]) => Promise<TlsPeer>;

describe.each<[string, Start]>([
  [
    "nginx",
    (mediaPaths, scansUploads, marks) => startNginx({ ...upstreams, scansUploads, mediaPaths, ...(marks === undefined ? {} : { marks }) }),
  ],
  ["Caddy", (mediaPaths, scansUploads, marks) => startCaddy({ ...upstreams, scansUploads }, mediaPaths, marks)],
  ["HAProxy", (mediaPaths, scansUploads, marks) => startHaProxy({ ...upstreams, scansUploads }, mediaPaths, marks)],
])("%s", (_name, start) => {
  let proxy: TlsPeer;
  const ask = async (target: string, options: RawOptions = {}): Promise<Partial<Asked>> =>
    asked(await rawRequest(proxy.url, target, options));

  describe("with the content-scanner API alone", () => {
    beforeAll(async () => {
      proxy = await start("synapse", false);
    });
    afterAll(() => proxy.stop());

    it("that goes to the gateway, all else to Synapse, as it came", async () => {
      for (const target of SCANNER) expect(await ask(target)).toMatchObject({ who: "gateway", target });
      for (const target of [...MEDIA_PATHS, ...OTHER_MEDIA_PATHS, ...SYNAPSE])
        expect(await ask(target)).toMatchObject({ who: "synapse", target });
      for (const target of ["/", "/_synapse/admin/v1/users", "/x"]) expect((await ask(target)).who, target).toBe("nobody: 404");
    });

    it("both are told the client's address, whatever the client writes about itself", async () => {
      for (const target of [SCANNER[0] ?? "", SYNAPSE[0] ?? ""]) {
        const { headers } = await ask(target, { headers: { "x-forwarded-for": "203.0.113.9", authorization: "Bearer x" } });
        expect(headers, target).toMatchObject({ "x-forwarded-for": "127.0.0.1", authorization: "Bearer x" });
      }
    });
  });

  describe("with unmodified clients", () => {
    beforeAll(async () => {
      proxy = await start("gateway", false);
    });
    afterAll(() => proxy.stop());

    it("all media paths go to the gateway, as they came, known or not", async () => {
      for (const target of [...SCANNER, ...MEDIA_PATHS, ...OTHER_MEDIA_PATHS]) {
        expect(await ask(target, { headers: { "x-forwarded-for": "203.0.113.9" } })).toMatchObject({
          who: "gateway",
          target,
          headers: { "x-forwarded-for": "127.0.0.1" },
        });
      }
    });

    it("uploads go to Synapse, whole", async () => {
      for (const [method, target] of UPLOADS) {
        expect(await ask(target, { method, body: Buffer.alloc(2_000_000) })).toMatchObject({
          who: "synapse",
          method,
          target,
          size: 2_000_000,
        });
      }
    });

    it("all that is no media goes to Synapse, the media API for other homeservers among it", async () => {
      for (const target of SYNAPSE) expect(await ask(target)).toMatchObject({ who: "synapse", target });
    });

    it("no spelling of a download reaches Synapse", async () => {
      for (const target of TRAVERSALS(MEDIA)) expect((await ask(target)).who, target).not.toBe("synapse");
    });
  });

  describe.each<[string, MediaPaths]>([
    ["alone", "synapse"],
    ["beside unmodified clients", "gateway"],
  ])("with uploads that are scanned, %s", (_beside, mediaPaths) => {
    beforeAll(async () => {
      proxy = await start(mediaPaths, true);
    });
    afterAll(() => proxy.stop());

    it("uploads go to the gateway, whole, and with them all that may be one", async () => {
      const others = [
        "/_matrix/media/unstable/upload",
        "/_matrix/media/v4/upload/x",
        "/_matrix/media/v3/upload/",
        "/_matrix/media/v3/create",
      ];
      for (const [method, target] of [...UPLOADS, ...others.map((target) => ["POST", target] as const)]) {
        const headers = { "x-forwarded-for": "203.0.113.9" };
        expect(await ask(target, { method, headers, body: Buffer.alloc(2_000_000) })).toMatchObject({
          who: "gateway",
          method,
          target,
          size: 2_000_000,
          headers: { "x-forwarded-for": "127.0.0.1" },
        });
      }
    });

    it("everything else goes where it went", async () => {
      for (const target of SCANNER) expect(await ask(target)).toMatchObject({ who: "gateway", target });
      for (const target of MEDIA_PATHS) expect(await ask(target)).toMatchObject({ who: mediaPaths, target });
      for (const target of SYNAPSE) expect(await ask(target)).toMatchObject({ who: "synapse", target });
    });

    it("no spelling of an upload reaches Synapse, nor a path that is one to whoever follows the dots", async () => {
      const dotted = TRAVERSALS(MEDIA).filter((target) => /(\.|%2e){2}/i.test(target));
      // Without dots it is a download, which goes where downloads go.
      const others = mediaPaths === "gateway" ? TRAVERSALS(MEDIA) : [];
      for (const target of [...SPELLED_UPLOADS, ...dotted, ...others])
        expect((await ask(target, { method: "POST", body: Buffer.from("x") })).who, target).not.toBe("synapse");
    });
  });

  it.each<[MediaMark, MediaMark]>([
    ["unmodified", "uploads"],
    ["uploads", "unmodified"],
    ["unmodified", "both"],
    ["both", "unmodified"],
  ])("no upload gets past when the texts for %s and %s are there", async (...marks) => {
    let both: TlsPeer;
    try {
      both = await start("gateway", true, marks);
    } catch (error) {
      expect(String(error)).toMatch(/duplicate location "\/_matrix\/media"|matcher is defined more than once/);
      return;
    }
    try {
      for (const [method, target] of UPLOADS) {
        expect(asked(await rawRequest(both.url, target, { method, body: Buffer.from("x") })).who).toBe("gateway");
      }
    } finally {
      await both.stop();
    }
  });
});

describe("nginx, with the homeserver's media paths refused", () => {
  let nginx: TlsPeer;
  beforeAll(async () => {
    nginx = await startNginx({ ...upstreams, mediaPaths: "refused" });
  });
  afterAll(() => nginx.stop());

  it("no client gets media from Synapse, by no spelling", async () => {
    for (const target of MEDIA_PATHS) expect((await rawRequest(nginx.url, target)).status, target).toBe(403);
    for (const target of TRAVERSALS(MEDIA)) expect(asked(await rawRequest(nginx.url, target)).who, target).toMatch(/^nobody/);
    for (const target of SCANNER) expect(asked(await rawRequest(nginx.url, target))).toMatchObject({ who: "gateway" });
    for (const target of SYNAPSE) expect(asked(await rawRequest(nginx.url, target))).toMatchObject({ who: "synapse" });
  });
});
