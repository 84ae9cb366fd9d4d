/** The homeserver's own media paths, for clients that know nothing of scanners. */
import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { EICAR } from "../../src/scan/canary-samples.ts";
import { type Harness, startHarness, TOKEN } from "../support/harness.ts";

const CLEAN = Buffer.from("a harmless text\n");
const INFECTED = {
  errcode: "M_FORBIDDEN",
  error: "***VIRUS DETECTED***",
  reason: "MCS_MEDIA_NOT_CLEAN",
  info: "***VIRUS DETECTED***",
};

const AUTHENTICATED = ["/_matrix/client/v1/media", "/_matrix/client/unstable/org.matrix.msc3916/media"];
const LEGACY = ["/_matrix/media/v3", "/_matrix/media/v1", "/_matrix/media/r0"];

function start(options: Parameters<typeof startHarness>[0] = {}): Promise<Harness> {
  return startHarness({ transparent: { onOpaque: "pass" }, ...options });
}

/** What the homeserver was asked, without the query. */
function asked(gateway: Harness): (string | undefined)[] {
  return gateway.homeserver.requests.map(({ path }) => path.split("?", 1)[0]);
}

function queryOf(path: string | undefined): Record<string, string> {
  return Object.fromEntries(new URL(path ?? "", "http://homeserver").searchParams);
}

describe("downloads and thumbnails", () => {
  it("each path is served, and asks the API that it belongs to", async () => {
    await using gateway = await start();
    const mxc = gateway.put(CLEAN, { unauthenticated: true, thumbnail: { bytes: Buffer.from("small"), contentType: "image/png" } });
    for (const [paths, api] of [
      [AUTHENTICATED, () => "/_matrix/client/v1/media"],
      [LEGACY, (path: string) => path],
    ] as const) {
      for (const path of paths) {
        for (const name of ["", "/file.txt"]) {
          gateway.homeserver.requests.length = 0;
          const download = await gateway.get(`${path}/download/${mxc}${name}`, TOKEN);
          expect([download.status, download.body], path).toEqual([200, CLEAN]);
          const thumbnail = await gateway.get(`${path}/thumbnail/${mxc}${name}?width=32&height=32&method=crop`, TOKEN);
          expect([thumbnail.status, thumbnail.body.toString()], path).toEqual([200, "small"]);
          expect(asked(gateway)).toEqual([`${api(path)}/download/${mxc}`, `${api(path)}/thumbnail/${mxc}`]);
        }
      }
    }
    // The same media in two forms, whichever way it was asked for.
    expect(gateway.scanner.begun).toBe(2);
  });

  it("what is handed on has the headers that make it harmless", async () => {
    await using gateway = await start();
    const mxc = gateway.put(CLEAN, { contentType: "text/html", contentDisposition: "inline" });
    const answer = await gateway.get(`/_matrix/client/v1/media/download/${mxc}`, TOKEN);
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      "content-disposition": "attachment",
      "x-content-type-options": "nosniff",
      "cross-origin-resource-policy": "cross-origin",
      "content-security-policy": expect.stringContaining("sandbox;"),
      "cache-control": "private, no-store",
      "access-control-allow-origin": "*",
    });
    const head = await gateway.get(`/_matrix/client/v1/media/download/${mxc}`, TOKEN, { method: "HEAD" });
    expect([head.status, head.headers.get("content-length"), head.body.length]).toEqual([200, String(CLEAN.length), 0]);
  });

  it("infected media is 403 in the standard form, on every path", async () => {
    await using gateway = await start();
    const mxc = gateway.put(EICAR, { unauthenticated: true, thumbnail: { bytes: EICAR, contentType: "image/png" } });
    for (const path of [...AUTHENTICATED, ...LEGACY]) {
      for (const kind of ["download", "thumbnail"]) {
        for (const name of ["", "/x.png"]) {
          const answer = await gateway.get(`${path}/${kind}/${mxc}${name}`, TOKEN);
          expect([answer.status, answer.json], path).toEqual([403, INFECTED]);
        }
        const head = await gateway.get(`${path}/${kind}/${mxc}`, TOKEN, { method: "HEAD" });
        expect([head.status, head.body.length], path).toEqual([403, 0]);
      }
    }
  });

  it("what the homeserver refuses is refused in the standard form", async () => {
    await using gateway = await start();
    gateway.homeserver.addToken("old", "expired");
    const pending = gateway.put(CLEAN, { pending: true });
    const limited = gateway.put(CLEAN, {
      behaviour: { answer: { status: 429, body: { errcode: "M_LIMIT_EXCEEDED" }, headers: { "retry-after": "7" } } },
    });
    const broken = gateway.put(CLEAN, { behaviour: { answer: { status: 500 } } });
    const path = "/_matrix/client/v1/media/download";
    const missing = `${gateway.homeserver.serverName}/missing`;
    const cases = [
      [missing, TOKEN, 404, { errcode: "M_NOT_FOUND", reason: "M_NOT_FOUND" }],
      [missing, "mallory", 401, { errcode: "M_UNKNOWN_TOKEN", soft_logout: false }],
      [missing, "old", 401, { errcode: "M_UNKNOWN_TOKEN", error: "Access token has expired", soft_logout: true }],
      [missing, undefined, 401, { errcode: "M_MISSING_TOKEN" }],
      [pending, TOKEN, 504, { errcode: "M_NOT_YET_UPLOADED" }],
      [limited, TOKEN, 429, { errcode: "M_LIMIT_EXCEEDED", retry_after_ms: 7000 }],
      [broken, TOKEN, 502, { errcode: "M_UNKNOWN", reason: "MCS_MEDIA_REQUEST_FAILED" }],
      ["no server/x", TOKEN, 400, { errcode: "M_INVALID_PARAM" }],
    ] as const;
    for (const [mxc, token, status, body] of cases) {
      const answer = await gateway.get(`${path}/${mxc}`, token);
      expect([answer.status, answer.json], JSON.stringify(body)).toEqual([status, expect.objectContaining(body)]);
    }
  });

  it("without transparent, there are none of these paths", async () => {
    await using gateway = await startHarness();
    const mxc = gateway.put(CLEAN, { unauthenticated: true });
    for (const path of [...AUTHENTICATED, ...LEGACY]) {
      const answer = await gateway.get(`${path}/download/${mxc}`, TOKEN);
      expect([answer.status, answer.json["errcode"]], path).toEqual([404, "M_UNRECOGNIZED"]);
    }
    expect(gateway.homeserver.requests).toEqual([]);
  });
});

describe("authorisation", () => {
  it("verdicts are shared with the scanner API, in both directions; a yes to one request is none to another", async () => {
    for (const first of ["scanner", "client"] as const) {
      await using gateway = await start();
      const mxc = gateway.put(randomBytes(2_000_000), { readers: [TOKEN] });
      const paths = [`scan/${mxc}`, `/_matrix/client/v1/media/download/${mxc}`];
      for (const path of first === "scanner" ? paths : paths.toReversed()) expect((await gateway.get(path, TOKEN)).status).toBe(200);
      expect(gateway.scanner.begun).toBe(1);
      gateway.homeserver.addToken("bob");
      for (const [path, token, status] of [
        [`/_matrix/client/v1/media/download/${mxc}`, undefined, 401],
        [`/_matrix/client/v1/media/download/${mxc}`, "mallory", 401],
        [`/_matrix/client/v1/media/download/${mxc}`, "bob", 502],
        [`/_matrix/media/v3/download/${mxc}`, TOKEN, 404],
        [`/_matrix/media/v3/download/${mxc}`, undefined, 404],
      ] as const) {
        expect((await gateway.get(path, token)).status, `${path} ${token}`).toBe(status);
      }
    }
  });

  it("an old path is never answered from the new one, though a token came along; nor the new one from the old", async () => {
    await using gateway = await start();
    const frozen = gateway.put(CLEAN);
    const old = gateway.put(CLEAN, { unauthenticated: true });
    for (const path of LEGACY) {
      const answer = await gateway.get(`${path}/download/${frozen}`, TOKEN);
      expect([answer.status, answer.json["errcode"]], path).toEqual([404, "M_NOT_FOUND"]);
    }
    expect(gateway.homeserver.requests.every(({ headers }) => headers.authorization === `Bearer ${TOKEN}`)).toBe(true);
    for (const path of AUTHENTICATED) {
      const answer = await gateway.get(`${path}/download/${old}`);
      expect([answer.status, answer.json["errcode"]], path).toEqual([401, "M_MISSING_TOKEN"]);
    }
    expect(asked(gateway).filter((path) => path === `/_matrix/media/v3/download/${old}`)).toEqual([]);
  });

  it("who waits for somebody else's scan asks for itself, at the endpoint that it named", async () => {
    await using gateway = await start();
    const release = Promise.withResolvers<void>();
    gateway.scanner.hold = release.promise;
    const mxc = gateway.put(CLEAN);
    const leader = gateway.get(`/_matrix/client/v1/media/download/${mxc}`, TOKEN);
    await expect.poll(() => gateway.scanner.begun).toBe(1);
    const followers = [
      gateway.get(`/_matrix/media/v3/download/${mxc}`, TOKEN),
      gateway.get(`/_matrix/client/v1/media/download/${mxc}`),
      gateway.get(`download/${mxc}`, TOKEN),
    ];
    release.resolve();
    expect((await leader).status).toBe(200);
    expect((await Promise.all(followers)).map(({ status }) => status)).toEqual([404, 401, 200]);
    expect(gateway.scanner.begun).toBe(1);
  });

  it("a token in the query goes on in the header, and nowhere else; the header wins", async () => {
    await using gateway = await start();
    const mxc = gateway.put(CLEAN);
    const path = `/_matrix/client/v1/media/download/${mxc}`;
    expect((await gateway.get(`${path}?access_token=${TOKEN}`)).status).toBe(200);
    expect((await gateway.get(`${path}?access_token=mallory`, TOKEN)).status).toBe(200);
    expect((await gateway.get(`${path}?access_token=mallory`)).status).toBe(401);
    expect((await gateway.get(`${path}?access_token=a%20b`)).json["errcode"]).toBe("M_MISSING_TOKEN");
    expect(gateway.homeserver.requests.map(({ headers }) => headers.authorization)).toEqual([
      `Bearer ${TOKEN}`,
      `Bearer ${TOKEN}`,
      "Bearer mallory",
      undefined,
    ]);
    expect(gateway.homeserver.requests.filter(({ path }) => path.includes("access_token"))).toEqual([]);
    // The scanner API has no such parameter.
    expect((await gateway.get(`download/${mxc}?access_token=${TOKEN}`)).status).toBe(404);
  });

  it("a made-up token is no client of its own where the homeserver looks at none", async () => {
    await using gateway = await start({ admission: { maxPerClient: 1 } });
    const old = gateway.put(CLEAN, { unauthenticated: true });
    for (const token of ["made", "up"]) expect((await gateway.get(`/_matrix/media/v3/download/${old}`, token)).status).toBe(200);
    const release = Promise.withResolvers<void>();
    gateway.scanner.hold = release.promise;
    const held = ["made", "up", "too", "many"].map((token, at) =>
      gateway.get(`/_matrix/media/v3/download/${gateway.put(Buffer.from(`held ${at}`), { unauthenticated: true })}`, token),
    );
    await expect.poll(() => gateway.scanner.begun).toBe(5);
    // An address has four shares, and these four tokens were but one address.
    const answer = await gateway.get(`/_matrix/media/v3/download/${old}`, "made");
    expect([answer.status, answer.json["errcode"]]).toEqual([429, "M_LIMIT_EXCEEDED"]);
    release.resolve();
    expect((await Promise.all(held)).map(({ status }) => status)).toEqual([200, 200, 200, 200]);
  });
});

describe("a homeserver's address that leads back to the gateway", () => {
  it("is found out with the first request", async () => {
    await using gateway = await start();
    const mxc = gateway.put(CLEAN, { unauthenticated: true });
    for (const path of [`download/${mxc}`, "config"]) {
      gateway.homeserver.behaviour = {};
      await gateway.get(`/_matrix/media/v3/${path}`, TOKEN);
      // As its own request would come back to it, by way of a reverse proxy that adds itself.
      const via = `${gateway.homeserver.requests.at(-1)?.headers.via}, 1.1 proxy`;
      const asked = gateway.homeserver.requests.length;
      const answer = await gateway.get(`/_matrix/media/v3/${path}`, TOKEN, { headers: { via } });
      expect([answer.status, answer.json["errcode"]]).toEqual([502, "M_UNKNOWN"]);
      expect(gateway.homeserver.requests).toHaveLength(asked);
      expect(gateway.reports.at(-1)?.error?.message).toContain("base_homeserver_url");
    }
    const answer = await gateway.get(`/_matrix/media/v3/download/${mxc}`, TOKEN, { headers: { via: "1.1 another-gateway" } });
    expect(answer.status).toBe(200);
  });
});

describe("what the client asks for beside the media", () => {
  it("timeout_ms goes on as far as it leaves time for the scan, allow_remote as it is, allow_redirect never", async () => {
    await using gateway = await start();
    const mxc = gateway.put(CLEAN, { unauthenticated: true });
    const queries = [
      "timeout_ms=0",
      "timeout_ms=5000",
      "timeout_ms=600000",
      "allow_remote=false&allow_redirect=true",
      "allow_remote=true&x=y",
    ];
    for (const query of queries) expect((await gateway.get(`/_matrix/media/v3/download/${mxc}?${query}`)).status).toBe(200);
    expect(gateway.homeserver.requests.map(({ path }) => queryOf(path))).toEqual([
      { timeout_ms: "0" },
      { timeout_ms: "5000" },
      { timeout_ms: "10000" },
      { timeout_ms: "10000", allow_remote: "false" },
      { timeout_ms: "10000", allow_remote: "true" },
    ]);
    // None of it makes another media of it.
    expect(gateway.scanner.begun).toBe(1);
  });

  it("animated is part of the thumbnail; what makes no sense is refused, and nothing is asked", async () => {
    await using gateway = await start();
    const mxc = gateway.put(CLEAN, { thumbnail: { bytes: Buffer.from("small"), contentType: "image/png" } });
    const path = `/_matrix/client/v1/media/thumbnail/${mxc}?width=32&height=32`;
    for (const animated of ["true", "false"]) expect((await gateway.get(`${path}&animated=${animated}`, TOKEN)).status).toBe(200);
    expect(gateway.homeserver.requests.map(({ path }) => queryOf(path)["animated"])).toEqual(["true", "false"]);
    gateway.homeserver.requests.length = 0;
    for (const query of ["animated=yes", "method=stretch", "width=0", "timeout_ms=-1", "timeout_ms=1e3", "timeout_ms=", "allow_remote=1"]) {
      const answer = await gateway.get(`/_matrix/client/v1/media/thumbnail/${mxc}?${query}`, TOKEN);
      expect([answer.status, answer.json["errcode"]], query).toEqual([400, "M_INVALID_PARAM"]);
    }
    expect(gateway.homeserver.requests).toEqual([]);
  });

  it("the file name in the path is the name of what is handed on, made harmless; it does not go to the homeserver", async () => {
    await using gateway = await start();
    const mxc = gateway.put(CLEAN, { contentType: "text/plain", contentDisposition: 'inline; filename="theirs.txt"' });
    const cases = [
      ["", "inline; filename=theirs.txt"],
      ["/mine.txt", "inline; filename=mine.txt"],
      ["/100%25.txt", "inline; filename=100%.txt"],
      ["/%25252e.txt", "inline; filename=%252e.txt; filename*=UTF-8''%25252e.txt"],
      ["/n%C3%A9.txt", "inline; filename=\"n?.txt\"; filename*=UTF-8''n%C3%A9.txt"],
      ["/..%2f..%2fetc%2fpasswd", "inline; filename=passwd"],
      ["/..%5c..%5cx.txt", "inline; filename=x.txt"],
      ["/a%0d%0aset-cookie:%20a=b", 'inline; filename="aset-cookie: a=b"'],
      ["/a%22;%20b.html", 'inline; filename="a\\"; b.html"'],
      ["/x%E2%80%AEtxt.exe", "inline; filename=xtxt.exe"],
      // Nothing is left of these, so the homeserver's name stays.
      ["/..%2f..", "inline; filename=theirs.txt"],
      ["/%00", "inline; filename=theirs.txt"],
    ] as const;
    for (const [name, disposition] of cases) {
      const answer = await gateway.get(`/_matrix/client/v1/media/download/${mxc}${name}`, TOKEN);
      expect([answer.status, answer.headers.get("content-disposition")], name).toEqual([200, disposition]);
      expect(answer.headers.get("set-cookie")).toBeNull();
    }
    const long = await gateway.get(`/_matrix/client/v1/media/download/${mxc}/${"x".repeat(2000)}.txt`, TOKEN);
    expect(long.headers.get("content-disposition")).toBe(`inline; filename=${"x".repeat(255)}`);
    expect(new Set(asked(gateway))).toEqual(new Set([`/_matrix/client/v1/media/download/${mxc}`]));
  });

  it("a redirect of the homeserver's is followed here, never by the client", async () => {
    await using gateway = await start();
    const elsewhere = gateway.put(EICAR);
    const mxc = gateway.put(CLEAN, {
      behaviour: { redirectTo: `${gateway.homeserver.url}/_matrix/client/v1/media/download/${elsewhere}` },
    });
    const answer = await gateway.get(`/_matrix/client/v1/media/download/${mxc}?allow_redirect=true`, TOKEN);
    expect([answer.status, answer.json, answer.headers.get("location")]).toEqual([403, INFECTED, null]);
  });
});
