import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ConfigError, loadConfig } from "../../src/config/load.ts";

const FIXTURES = new URL("../fixtures/config/", import.meta.url).pathname;
const ONE_SERVICE = "icap: [{ name: av, urls: ['icap://127.0.0.1/virus_scan'] }]\n";

const HOMESERVER = "download: { base_homeserver_url: 'http://127.0.0.1:8008' }\n";

function redis(keys: string): string {
  return `${ONE_SERVICE}result_cache: { redis: { ${keys} } }`;
}

function service(keys: string, url = "icap://127.0.0.1/x"): string {
  return `icap: [{ name: av, urls: ["${url}"], ${keys} }]\n`;
}

async function file(name: string, text: string): Promise<string> {
  await writeFile(join(directory, name), text);
  return join(directory, name);
}

function pem(what: string): string {
  return `-----BEGIN ${what}-----\n`;
}

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "mig-config-"));
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

async function load(text: string | Buffer) {
  const file = join(directory, "config.yaml");
  await writeFile(file, text);
  return loadConfig(file);
}

/** The lines an operator sees, without the file's name. */
async function complaints(text: string | Buffer): Promise<string[]> {
  const error = await load(text).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof ConfigError)) throw new Error("the configuration was accepted", { cause: error });
  return error.message.split("\n").map((line) => line.replace(join(directory, "config.yaml"), "").replace(/^:/, ""));
}

describe("a configuration of the Python scanner", () => {
  it.each(["python-scanner.yaml", "python-scanner-secret.yaml"])("%s loads unchanged", async (file) => {
    const { config, warnings } = await loadConfig(join(FIXTURES, file));

    expect(config).toMatchObject({
      web: { host: "127.0.0.1", port: 8080 },
      icap: [],
      scan: { script: "./example.sh", temp_directory: "/tmp", removal_command: "srm", allowed_mimetypes: ["image/jpeg"] },
      result_cache: { exit_codes_to_ignore: [1, 2], max_size: 2048, ttl: 86_400_000, max_file_size: 100_000_000 },
      download: {
        base_homeserver_url: "https://matrix.org",
        proxy: "http://10.0.0.1:3128",
        additional_headers: { "user-agent": "matrix-content-scanner" },
        headers_to_forward: ["host"],
      },
    });
    expect(warnings).toEqual([]);
  });

  it("keeps its pickle", async () => {
    const { config } = await loadConfig(join(FIXTURES, "python-scanner.yaml"));

    expect(config.crypto).toEqual({ pickle_path: "./pickle", pickle_key: "this_is_a_secret", previous_request_secret_paths: [] });
  });
});

describe("what is wrong", () => {
  it("is shown all at once, each with its place, and without a single secret", async () => {
    const file = join(FIXTURES, "every-mistake.yaml");
    const expected = (await readFile(join(FIXTURES, "every-mistake.txt"), "utf8")).trimEnd().replaceAll("FILE", file);

    const error = await loadConfig(file).catch((reason: unknown) => reason);

    expect(error).toBeInstanceOf(ConfigError);
    expect((error as ConfigError).message).toBe(expected);
    expect(expected).not.toContain("hunter2");
    expect((error as ConfigError).problems[0]).toEqual({
      path: "web.prot",
      line: 3,
      column: 3,
      message: "unknown key; did you mean port?",
    });
  });

  it.each([
    ["nothing to scan with", "", /^1:1: icap: there is nothing to scan with: name an ICAP service .* or a scan\.script$/],
    ["an empty list of services", "icap:\n", /^1:1: icap: there is nothing to scan with/],
    ["no section at all", "- web\n", /^1:1: must be a section of keys, not a list$/],
    [
      "two listeners on one port",
      `${ONE_SERVICE}admin: { port: 8080 }`,
      /^2:16: admin\.port: must not be the port of the web section too$/,
    ],
    ["a key twice", `${ONE_SERVICE}web:\n  port: 1\n  port: 2\n`, /^4:3: stands here for the second time$/],
    ["a key of the object prototype", `${ONE_SERVICE}__proto__: { web: { port: 1 } }`, /^2:1: __proto__: unknown key$/],
    ["a timer too long for a timer", `${ONE_SERVICE}scan: { timeout: 5 weeks }`, /^2:18: scan\.timeout: is too long$/],
    [
      "a time to live of nothing, which a cache takes for ever",
      `${ONE_SERVICE}result_cache: { ttl: 0s }`,
      /ttl: must be longer than nothing$/,
    ],
    ["a pickle without its key", `${ONE_SERVICE}crypto: { pickle_path: x }`, /crypto\.pickle_key: is needed beside crypto\.pickle_path$/],
    [
      "two private keys",
      `${ONE_SERVICE}crypto: { pickle_path: x, pickle_key: y, request_secret_path: z }`,
      /crypto\.pickle_path: must not stand beside crypto\.request_secret_path$/,
    ],
    [
      "credentials for everybody",
      `${ONE_SERVICE}download: { additional_headers: { AUTHORIZATION: Bearer x } }`,
      /would let everybody read what this token may read$/,
    ],
    [
      "a permission that is remembered for too long",
      `${ONE_SERVICE}download: { base_homeserver_url: "http://h", authorization_ttl: 61m }`,
      /download\.authorization_ttl: is too long$/,
    ],
    [
      "permissions of no one homeserver",
      `${ONE_SERVICE}download: { authorization_ttl: 30s }`,
      /download\.authorization_ttl: needs download\.base_homeserver_url: no other server sees a token$/,
    ],
    [
      "a homeserver's paths without a homeserver",
      `${ONE_SERVICE}transparent: { enabled: true }`,
      /transparent\.enabled: needs download\.base_homeserver_url: it stands in for that homeserver$/,
    ],
    ["a word for opaque files that is none", `${ONE_SERVICE}transparent: { on_opaque: scan }`, /on_opaque: must be one of pass, block$/],
    [
      "uploads without a homeserver",
      `${ONE_SERVICE}upload: { enabled: true }`,
      /upload\.enabled: needs download\.base_homeserver_url: that is where uploads go$/,
    ],
    [
      "tokens that nobody can check",
      `${ONE_SERVICE}scan_file: { enabled: true }`,
      /scan_file\.enabled: needs download\.base_homeserver_url, which tells whether a token is known; or scan_file\.require_token: false$/,
    ],
    ["a direction that is none", service("direction: up"), /direction: must be one of download, upload, both$/],
    [
      "nobody who decides on downloads",
      service("direction: upload"),
      /icap: no service that is required has the direction download or both, so no download would ever be blocked$/,
    ],
    [
      "nobody who decides on uploads",
      `${service("direction: download")}${HOMESERVER}upload: { enabled: true }`,
      /icap: no service that is required has the direction upload or both, so no upload would ever be blocked$/,
    ],
    [
      "an adviser alone for uploads",
      `icap: [{ name: av, urls: ["icap://127.0.0.1/x"], direction: download }, { name: dlp, urls: ["icap://127.0.0.1/y"], required: false }]\n${HOMESERVER}upload: { enabled: true }`,
      /so no upload would ever be blocked$/,
    ],
    [
      "a password file that is not there",
      `${ONE_SERVICE}result_cache: { redis: { url: "redis://h", password_path: /nowhere/at/all } }`,
      /^2:59: result_cache\.redis\.password_path: the file is not there$/,
    ],
    ["a Redis with options", redis('url: "redis://h/0?a=b"'), /redis\.url: may have the number of a database/],
    ["a Redis with a path", redis('url: "redis://h/x"'), /redis\.url: may have the number of a database/],
    ["no Redis", redis("key_prefix: x"), /redis\.url: is needed, or sentinels, or cluster: one of the three$/],
    ["two of them", redis('url: "redis://h", cluster: ["a:1"]'), /redis\.url: is needed, or sentinels, or cluster/],
    ["Sentinels without a master", redis('sentinels: ["a:1"]'), /redis\.master: and sentinels belong together$/],
    ["a node without a port", redis('cluster: ["redis-1"]'), /redis\.cluster\[0\]: must be a host and a port/],
    ["a node with too great a port", redis('cluster: ["redis-1:70000"]'), /redis\.cluster\[0\]: must be a host and a port/],
    ["TLS where the URL says none", redis('url: "redis://h", tls: {}'), /redis\.tls: is for rediss:\/\/ alone$/],
    ["a key without its certificate, to Redis", redis('url: "rediss://h", tls: { key_path: /k }'), /redis\.tls\.key_path: needs cert_path/],
    ["a user without a password", redis('url: "redis://h", username: x'), /redis\.username: needs password_path beside it$/],
    [
      "a short secret",
      `${ONE_SERVICE}result_cache: { digest_secret_path: /proc/sys/kernel/ostype }`,
      /digest_secret_path: the file has less than 32/,
    ],
    ["TLS for what has none", service("tls: { min_version: TLSv1.3 }"), /icap\[0\]\.tls: is for icaps:\/\/ alone/],
    ["a certificate without its key", service("tls: { cert_path: /c }", "icaps://h/x"), /tls\.cert_path: needs key_path beside it$/],
    ["a key without its certificate", service("tls: { key_path: /k }", "icaps://h/x"), /tls\.key_path: needs cert_path beside it$/],
    ["TLS of long ago", service("tls: { min_version: TLSv1.1 }", "icaps://h/x"), /min_version: must be one of TLSv1\.2, TLSv1\.3$/],
    ["authorities that are not there", service("tls: { ca_path: /no/where }", "icaps://h/x"), /tls\.ca_path: the file is not there$/],
    [
      "authorities that are something else",
      service("tls: { ca_path: /proc/version }", "icaps://h/x"),
      /ca_path: the file holds nothing in PEM/,
    ],
    ["a name without its password", service("username: x"), /icap\[0\]\.username: needs password_path beside it$/],
    ["a password without its name", service("password_path: /p"), /icap\[0\]\.password_path: needs username beside it$/],
    ["a name that would end early", service("username: 'a:b', password_path: /p"), /icap\[0\]\.username: must not hold a colon$/],
    [
      "a password of two lines",
      service("username: a, password_path: /proc/self/status"),
      /password_path: the file holds more than one line$/,
    ],
    ["a form that names nobody", service("context: { user_format: Local }"), /user_format: must hold \{user\} or \{localpart\}$/],
    ["a form with an unknown part", service("context: { user_format: '{user}{ip}' }"), /user_format: may hold \{user\}, \{localpart\} and/],
    [
      "a service that is nothing",
      "icap: [{ name: av, urls: ['icap://127.0.0.1/x'] }, null]",
      /^1:52: icap\[1\]: must be a section of keys; it is empty$/,
    ],
    ["one replica twice", "icap: [{ name: av, urls: ['icap://a/x', 'icap://a/x'] }]", /icap\[0\]\.urls\[1\]: stands here already$/],
    ["a vendor nobody knows", service("profile: acme"), /icap\[0\]\.profile: must be one of auto, c-icap, /],
    ["nobody who decides", service("required: false"), /^1:7: icap: none of the services is required/],
  ])("%s", async (_, text, complaint) => {
    expect(await complaints(text)).toEqual([expect.stringMatching(complaint)]);
  });

  it("in YAML is told in words that quote nothing of the file", async () => {
    const broken = [
      "*hunter2",
      "!hunter2 x",
      '"a\\qhunter2"',
      '"a" hunter2',
      "|hunter2\n",
      "a: hunter2",
      "@hunter2",
      "'hunter2",
      "[hunter2",
      "&hunter2 *x",
    ];
    for (const value of broken) {
      const lines = await complaints(`${ONE_SERVICE}crypto:\n  pickle_key: ${value}\n  pickle_path: x`);

      expect(lines[0], value).toMatch(/^[345]:\d+: /);
      expect(lines.join("\n")).not.toContain("hunter2");
    }
  });

  it.each([
    [
      "a bomb of aliases",
      `a: &a [x,x]\nb: &b [${"*a,".repeat(50)}*a]\nc: &c [${"*b,".repeat(50)}*b]\nd: [${"*c,".repeat(50)}*c]\n`,
      /too many aliases/,
    ],
    ["nesting without end", "[".repeat(100_000), /nested too deeply/],
    ["a second document", `${ONE_SERVICE}---\n${ONE_SERVICE}`, /a second document/],
    ["tabs", "web:\n\tport: 1\n", /tabs can't indent/],
  ])("%s is refused", async (_, text, complaint) => {
    expect((await complaints(text))[0]).toMatch(complaint);
  });

  it("an alias that is part of itself is refused as any wrong type", async () => {
    expect(await complaints(`${ONE_SERVICE}web: { trusted_proxies: &a [*a] }`)).toEqual([
      expect.stringMatching(/web\.trusted_proxies\[0\]: must be a string, not a list$/),
    ]);
  });
});

describe("a file that can't be a configuration", () => {
  it.each([
    ["is not there", "/nowhere/config.yaml", "/nowhere/config.yaml: is not there"],
    ["is a directory", "/tmp", "/tmp: is a directory"],
    ["never ends", "/dev/zero", "/dev/zero: is larger than 256 KiB, so it can't be the right file"],
    ["is a program", process.execPath, `${process.execPath}: is larger than 256 KiB, so it can't be the right file`],
  ])("because it %s", async (_, path, message) => {
    await expect(loadConfig(path)).rejects.toThrow(
      new ConfigError(path, [{ path: "", line: 0, column: 0, message: message.slice(path.length + 2) }]),
    );
    await expect(loadConfig(path)).rejects.toHaveProperty("message", message);
  });

  it.each([
    ["holds bytes that are no UTF-8", Buffer.from([0x61, 0x3a, 0x20, 0xff])],
    ["holds NUL", Buffer.from("a: \0")],
  ])("because it %s", async (_, bytes) => {
    expect(await complaints(bytes)).toEqual([" is not UTF-8 text"]);
  });
});

describe("what works", () => {
  it("reads Redis's password from its file", async () => {
    const password = join(directory, "password");
    await writeFile(password, "hunter2\n");

    const { config } = await load(
      `${ONE_SERVICE}result_cache: { redis: { url: "rediss://redis.example.com", password_path: ${password} } }`,
    );

    expect(config.result_cache.redis).toEqual({
      url: "rediss://redis.example.com",
      key_prefix: "mig:",
      password_path: password,
      password: "hunter2",
    });
  });

  it("reads a service's password, certificates and key from their files", async () => {
    const tls = {
      ca_path: await file("ca", pem("CA")),
      cert_path: await file("cert", pem("CERTIFICATE")),
      key_path: await file("key", pem("KEY")),
    };
    const keys = `tls: ${JSON.stringify(tls)}, username: gateway, password_path: ${await file("password", "hunter2\n")}`;

    const { config, warnings } = await load(service(keys, "icaps://scanner.example.com/x"));

    expect(warnings).toEqual([]);
    expect(config.icap).toMatchObject([
      {
        password: "hunter2",
        tls: { ca: pem("CA"), cert: pem("CERTIFICATE"), key: pem("KEY"), min_version: "TLSv1.2" },
      },
    ]);
  });

  it("takes Sentinels, Clusters, and IPv6 addresses among them", async () => {
    const sentinels = { sentinels: ["redis-1.example.com:26379", "[::1]:26379"], master: "mymaster" };
    expect((await load(redis(JSON.stringify(sentinels).slice(1, -1)))).config.result_cache.redis).toMatchObject({
      sentinels: [
        { host: "redis-1.example.com", port: 26379 },
        { host: "::1", port: 26379 },
      ],
      master: "mymaster",
    });
    expect((await load(redis('cluster: ["10.0.0.1:6379"]'))).config.result_cache.redis).toMatchObject({
      cluster: [{ host: "10.0.0.1", port: 6379 }],
    });
  });

  it("takes sections whose keys are all commented out, anchors, and a byte order mark", async () => {
    const { config } = await load(`\uFEFFscan:\ndownload:\nweb: { trusted_proxies: &proxies [10.0.0.0/8] }\n${ONE_SERVICE}`);

    expect(config.web).toEqual({ host: "127.0.0.1", port: 8080, workers: 1, trusted_proxies: ["10.0.0.0/8"] });
    expect(config.scan.wait).toBe(25_000);
  });

  it("takes services for one direction, where the other has one that decides, a script, or no use", async () => {
    const both = `icap: [{ name: av, urls: ["icap://127.0.0.1/x"], direction: download }, { name: dlp, urls: ["icap://127.0.0.1/y"], direction: upload }]\n`;
    for (const text of [
      `${both}${HOMESERVER}upload: { enabled: true }`,
      `${service("direction: download")}${HOMESERVER}`,
      `${service("direction: upload")}scan: { script: x }\n${HOMESERVER}`,
    ]) {
      expect((await load(text)).warnings).toEqual([]);
    }
  });

  it("forwards each header once, and Authorization by its own way", async () => {
    const { config } = await load(`${ONE_SERVICE}download: { headers_to_forward: [Host, host, Authorization, X-Forwarded-For] }`);

    expect(config.download.headers_to_forward).toEqual(["host", "x-forwarded-for"]);
  });

  it.each([
    [
      "files in the clear",
      "icap: [{ name: av, urls: ['icap://scanner.example.com/x'] }]",
      /^1:27: icap\[0\]\.urls\[0\]: files travel .* in the clear/,
    ],
    ["a service that proves nothing", "icap: [{ name: dlp, urls: ['icap://[::1]/x'], canary: [] }]", /icap\[0\]\.canary: nobody checks/],
    ["a preview that is believed", service("preview: trusted"), /icap\[0\]\.preview: this service may pass a file of which/],
    ["lists that are believed", service("transfer_lists: trusted"), /icap\[0\]\.transfer_lists: files whose detected type/],
    ["a pause longer than the longest", service("suspend: { pause: 1h }"), /icap\[0\]\.suspend\.pause: is longer than max_pause/],
    [
      "a connection that may take longer than all",
      service("connect_timeout: 1h"),
      /icap\[0\]\.connect_timeout: is longer than total_timeout/,
    ],
    ["connections that a proof takes up", service("max_connections: 2"), /icap\[0\]\.max_connections: is so small that files wait/],
    [
      "a service that nobody asks",
      `icap: [{ name: av, urls: ["icap://127.0.0.1/x"] }, { name: dlp, urls: ["icap://127.0.0.1/y"], direction: upload }]`,
      /icap\[1\]\.direction: is upload, but no uploads come this way/,
    ],
    [
      "scanners for everybody",
      `${ONE_SERVICE}scan_file: { require_token: false }`,
      /scan_file\.require_token: lets everybody use the scanners/,
    ],
    [
      "one scanner's word on what it made",
      `${ONE_SERVICE}scan: { on_modified: deliver }`,
      /scan\.on_modified: hands on what the only scanner/,
    ],
    ["blocking nothing when scanners fail", `${ONE_SERVICE}scan: { on_unavailable: allow }`, /scan\.on_unavailable: files pass unscanned/],
    ["blocking nothing that can't be scanned", `${ONE_SERVICE}scan: { on_unscannable: allow }`, /scan\.on_unscannable: files pass/],
    ["allowing no type", `${ONE_SERVICE}scan: { allowed_mimetypes: [] }`, /scan\.allowed_mimetypes: is empty: every file is blocked/],
    ["trusting everybody", `${ONE_SERVICE}web: { trusted_proxies: [0.0.0.0/0] }`, /web\.trusted_proxies: trusts everybody/],
    [
      "a disk that one upload fills",
      `${ONE_SERVICE}scan: { spool: { disk: 399MiB } }\nupload: { enabled: true }\n${HOMESERVER}`,
      /scan\.spool\.disk: is less than twice scan\.max_file_size: one upload may take most of it/,
    ],
    ["more memory than there is", `${ONE_SERVICE}scan: { spool: { memory: 999TiB } }`, /scan\.spool\.memory: is more than half/],
  ])("warns about %s", async (_, text, warning) => {
    const { warnings } = await load(text);

    expect(warnings.map((line) => line.replace(`${join(directory, "config.yaml")}:`, ""))).toEqual([expect.stringMatching(warning)]);
  });

  it.each(["icap://localhost/x", "icap://127.0.0.2:1344/x?a=b", "icap://[::1]/x"])(
    "says nothing about %s, which stays on this machine",
    async (url) => {
      expect((await load(`icap: [{ name: av, urls: ["${url}"] }]`)).warnings).toEqual([]);
    },
  );
});
