import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";
import { request as rawRequest } from "node:http";
import type OlmModule from "@matrix-org/olm";
import { describe, expect, it } from "vitest";
import { BASE_PATH } from "../../src/http/app.ts";
import { EICAR } from "../../src/scan/canary-samples.ts";
import { encryptFile } from "../support/encrypted-file.ts";
import { startHarness, TOKEN } from "../support/harness.ts";

const CLEAN = Buffer.from("a harmless text\n");

describe("plain media", () => {
  it("clean media is handed on with the homeserver's type, the security headers and nothing to cache", async () => {
    await using gateway = await startHarness();
    const mxc = gateway.put(CLEAN, { contentType: "text/plain; charset=utf-8", contentDisposition: 'inline; filename="note.txt"' });
    const answer = await gateway.get(`download/${mxc}`, TOKEN);
    expect(answer.status).toBe(200);
    expect(answer.body).toEqual(CLEAN);
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      "content-type": "text/plain; charset=utf-8",
      "content-length": String(CLEAN.length),
      "content-disposition": "inline; filename=note.txt",
      "x-content-type-options": "nosniff",
      "cross-origin-resource-policy": "cross-origin",
      "content-security-policy": expect.stringContaining("sandbox;"),
      "cache-control": "private, no-store",
      "accept-ranges": "none",
      "access-control-allow-origin": "*",
    });
  });

  it("infected media is 403 on download, and 200 with clean: false on scan", async () => {
    await using gateway = await startHarness();
    const mxc = gateway.put(EICAR);
    const download = await gateway.get(`download/${mxc}`, TOKEN);
    expect([download.status, download.json]).toEqual([403, { reason: "MCS_MEDIA_NOT_CLEAN", info: "***VIRUS DETECTED***" }]);
    const scan = await gateway.get(`scan/${mxc}`, TOKEN);
    expect([scan.status, scan.json]).toEqual([200, { clean: false, info: "***VIRUS DETECTED***" }]);
    const clean = await gateway.get(`scan/${gateway.put(CLEAN)}`, TOKEN);
    expect([clean.status, clean.json]).toEqual([200, { clean: true, info: "File is clean" }]);
  });

  it("thumbnails are asked for with all parameters, whichever the client left out", async () => {
    await using gateway = await startHarness();
    const mxc = gateway.put(CLEAN, { thumbnail: { bytes: Buffer.from("small"), contentType: "image/png" } });
    expect((await gateway.get(`thumbnail/${mxc}`, TOKEN)).body.toString()).toBe("small");
    expect((await gateway.get(`thumbnail/${mxc}?width=96&height=64&method=crop&animated=true`, TOKEN)).status).toBe(200);
    const queries = gateway.homeserver.requests.map(({ path }) => Object.fromEntries(new URL(path, "http://x").searchParams));
    expect(queries[0]).toMatchObject({ width: "320", height: "240", method: "scale" });
    expect(queries[1]).toMatchObject({ width: "96", height: "64", method: "crop", animated: "true" });
    for (const query of ["width=0", "width=-1", "height=1e3", "width=99999", "method=stretch", "animated=yes"]) {
      expect((await gateway.get(`thumbnail/${mxc}?${query}`, TOKEN)).status, query).toBe(400);
    }
  });

  it("HEAD has the headers of GET, and no body", async () => {
    await using gateway = await startHarness();
    const mxc = gateway.put(CLEAN, { contentType: "text/plain" });
    for (const round of ["scanned", "known"]) {
      const head = await gateway.get(`download/${mxc}`, TOKEN, { method: "HEAD" });
      expect([head.status, head.headers.get("content-length"), head.body.length], round).toEqual([200, String(CLEAN.length), 0]);
      expect(head.headers.get("content-type")).toBe("text/plain");
    }
    expect((await gateway.get(`download/${gateway.put(EICAR)}`, TOKEN, { method: "HEAD" })).status).toBe(403);
    expect((await gateway.get("public_key", undefined, { method: "HEAD" })).status).toBe(200);
    await expect.poll(() => gateway.spooled()).toMatchObject({ memory: 0, disk: 0 });
  });

  it("what an uploader claims can't make a browser show or run the media", async () => {
    await using gateway = await startHarness();
    const page = { contentType: "text/html", behaviour: { headers: { "set-cookie": "a=b" } } };
    const html = await gateway.get(
      `download/${gateway.put(CLEAN, { ...page, contentDisposition: 'inline; filename="../../x.html"' })}`,
      TOKEN,
    );
    expect(html.headers.get("content-disposition")).toBe("attachment; filename=x.html");
    expect(html.headers.get("set-cookie")).toBeNull();
    for (const contentType of ["image/svg+xml", "application/pdf", "text/html;x", "nonsense", "image/png, text/html"]) {
      const answer = await gateway.get(`download/${gateway.put(CLEAN, { contentType, contentDisposition: "inline" })}`, TOKEN);
      expect(answer.headers.get("content-disposition"), contentType).toMatch(/^attachment/);
    }
  });

  it("a path that is no media ID or server name is refused, and nothing is fetched", async () => {
    await using gateway = await startHarness();
    const bad = [
      "a/..%2f..%2fx",
      "a/x%3fy",
      "a/x%00",
      `a/${"x".repeat(300)}`,
      `${"a".repeat(300)}/x`,
      "a%2fb/x",
      "a%20b/x",
      "a/x%",
      "[::1/x",
    ];
    for (const path of bad) {
      for (const route of ["download", "thumbnail", "scan"]) {
        const answer = await gateway.get(`${route}/${path}`, TOKEN);
        expect([answer.status, answer.json["reason"]], path).toEqual([400, "M_UNKNOWN"]);
      }
    }
    // Clients normalise these by themselves; an attacker's does not.
    for (const path of ["a/%2e%2e", "a/..", "../../a/b"]) {
      expect([400, 404], path).toContain(await rawStatus(`${gateway.url}${BASE_PATH}/download/`, path));
    }
    expect(gateway.homeserver.requests).toEqual([]);
  });

  it("server names are understood percent-encoded and raw", async () => {
    await using gateway = await startHarness();
    gateway.homeserver.put("id", { bytes: CLEAN }, "example.org:8448");
    gateway.homeserver.put("id", { bytes: CLEAN }, "[::1]:8448");
    for (const server of ["example.org:8448", "example.org%3A8448", "%5B%3A%3A1%5D%3A8448"]) {
      expect((await gateway.get(`download/${server}/id`, TOKEN)).status, server).toBe(200);
    }
  });
});

describe("encrypted media", () => {
  it("gives the ciphertext of clean media, and refuses encrypted EICAR", async () => {
    await using gateway = await startHarness();
    const clean = await encryptFile(CLEAN);
    const body = { file: clean.file(gateway.put(clean.ciphertext)) };
    const download = await gateway.post("download_encrypted", body, TOKEN);
    expect([download.status, download.body]).toEqual([200, clean.ciphertext]);
    expect((await gateway.post("scan_encrypted", body, TOKEN)).json).toEqual({ clean: true, info: "File is clean" });
    expect(gateway.scanner.scanned).toEqual([CLEAN]);

    const infected = await encryptFile(EICAR);
    const bad = { file: infected.file(gateway.put(infected.ciphertext)) };
    expect((await gateway.post("download_encrypted", bad, TOKEN)).status).toBe(403);
    expect((await gateway.post("scan_encrypted", bad, TOKEN)).json["clean"]).toBe(false);
  });

  it("reads a body that Olm encrypted to the public key", async () => {
    await using gateway = await startHarness();
    const { public_key: publicKey } = (await gateway.get("public_key")).json;
    const Olm = createRequire(import.meta.url)("@matrix-org/olm") as typeof OlmModule;
    await Olm.init();
    const encryption = new Olm.PkEncryption();
    encryption.set_recipient_key(String(publicKey));
    const file = await encryptFile(CLEAN);
    const sealed = encryption.encrypt(JSON.stringify({ file: file.file(gateway.put(file.ciphertext)) }));
    const encryptedBody = { ciphertext: sealed.ciphertext, mac: sealed.mac, ephemeral: sealed.ephemeral };
    expect((await gateway.post("download_encrypted", { encrypted_body: encryptedBody }, TOKEN)).body).toEqual(file.ciphertext);

    const answers = new Set<string>();
    const wrongInside = encryption.encrypt(JSON.stringify({ file: { url: "mxc://a/b" } }));
    const wrongMxc = encryption.encrypt(JSON.stringify({ file: file.file("not a server/..") }));
    for (const wrong of [
      { ...encryptedBody, mac: "AAAAAAAAAAA" },
      { ...encryptedBody, ciphertext: encryptedBody.ciphertext.slice(4) },
      { ...wrongInside },
      { ...wrongMxc },
      {},
      null,
      "x",
      { ...encryptedBody, ciphertext: "A".repeat(40_000) },
    ]) {
      const answer = await gateway.post("scan_encrypted", { encrypted_body: wrong }, TOKEN);
      answers.add(`${answer.status} ${answer.body.toString()}`);
    }
    expect([...answers]).toEqual(['403 {"reason":"MCS_BAD_DECRYPTION","info":"The encrypted body could not be decrypted"}']);
  });

  it("a wrong hash is MCS_MEDIA_FAILED_TO_DECRYPT, before anything is believed", async () => {
    await using gateway = await startHarness();
    const file = await encryptFile(EICAR);
    const other = await encryptFile(EICAR);
    for (const path of ["download_encrypted", "scan_encrypted"]) {
      const answer = await gateway.post(path, { file: file.file(gateway.put(other.ciphertext)) }, TOKEN);
      expect([answer.status, answer.json["reason"]]).toEqual([400, "MCS_MEDIA_FAILED_TO_DECRYPT"]);
    }
  });

  it("bodies that are not what they should be are 400 MCS_MALFORMED_JSON, and never 500", async () => {
    await using gateway = await startHarness();
    const { file } = await encryptFile(CLEAN);
    const good = file("example.org/abc");
    const bodies: unknown[] = ["", "[]", "null", "1", "{", '{"file":null}', "{}", '{"file":[]}', "\u0000", "[".repeat(30_000)];
    bodies.push({ file: { ...good, url: "https://example.org/abc" } }, { file: { ...good, v: "v1" } }, { file: { ...good, hashes: {} } });
    bodies.push({ file: { ...good, key: "x" } }, { file: { ...good, iv: 5 } });
    for (const body of bodies) {
      const answer = await gateway.post("scan_encrypted", body, TOKEN);
      expect([answer.status, answer.json["reason"]], JSON.stringify(body).slice(0, 80)).toEqual([400, "MCS_MALFORMED_JSON"]);
    }
    const invalidUtf8 = await fetch(`${gateway.url}/_matrix/media_proxy/unstable/scan_encrypted`, {
      method: "POST",
      body: Buffer.from([0x22, 0xff, 0x22]),
    });
    expect(invalidUtf8.status).toBe(400);
    const huge = await gateway.post("scan_encrypted", `{"x":"${"a".repeat(2 << 20)}"}`, TOKEN);
    expect([huge.status, huge.json["reason"]]).toEqual([413, "MCS_MALFORMED_JSON"]);
    expect(gateway.homeserver.requests).toEqual([]);
  });

  it("a key that is not what it should be is MCS_MEDIA_FAILED_TO_DECRYPT", async () => {
    await using gateway = await startHarness();
    const { file, ciphertext } = await encryptFile(CLEAN);
    const good = file(gateway.put(ciphertext)) as { key: object };
    for (const k of ["", "AAAA", "!!!!", randomBytes(33).toString("base64url")]) {
      const answer = await gateway.post("scan_encrypted", { file: { ...good, key: { ...good.key, k } } }, TOKEN);
      expect([answer.status, answer.json["reason"]], k).toEqual([400, "MCS_MEDIA_FAILED_TO_DECRYPT"]);
    }
  });

  it("the same media with a wrong key does not change what the right key gets, one after the other or at once", async () => {
    await using gateway = await startHarness();
    const infected = await encryptFile(EICAR);
    const mxc = gateway.put(infected.ciphertext);
    const right = infected.file(mxc) as { key: object };
    const wrong = { ...right, key: { ...right.key, k: randomBytes(32).toString("base64url") } };
    for (let round = 0; round < 3; round += 1) {
      const [first, , third] = await Promise.all([right, wrong, right].map((file) => gateway.post("download_encrypted", { file }, TOKEN)));
      expect([first?.status, third?.status]).toEqual([403, 403]);
    }
  });
});

describe("HTTP manners", () => {
  it("CORS on every answer; OPTIONS on any path is 200", async () => {
    await using gateway = await startHarness();
    const cors = {
      "access-control-allow-origin": "*",
      "access-control-allow-methods": "GET, POST, PUT, OPTIONS",
      "access-control-allow-headers": "Origin, X-Requested-With, Content-Type, Accept, Authorization",
    };
    for (const path of ["download/a/b", "nowhere", "../../../x"]) {
      const answer = await gateway.get(path, undefined, { method: "OPTIONS" });
      expect([answer.status, Object.fromEntries(answer.headers)], path).toEqual([200, expect.objectContaining(cors)]);
    }
    for (const path of ["download/a/b", "nowhere", "public_key", "download/a/%2e%2e"]) {
      expect(Object.fromEntries((await gateway.get(path)).headers), path).toMatchObject(cors);
    }
  });

  it("unknown routes are 404 and wrong methods 405, in the standard form", async () => {
    await using gateway = await startHarness();
    const unrecognized = { errcode: "M_UNRECOGNIZED", error: "Unrecognized request" };
    for (const path of ["", "nowhere", "download", "download/a", "download/a/b/c", "scan_file"]) {
      const answer = await gateway.get(path, TOKEN);
      expect([answer.status, answer.json], path).toEqual([404, unrecognized]);
    }
    for (const [method, path, allow] of [
      ["POST", "download/a/b", "GET, HEAD, OPTIONS"],
      ["DELETE", "public_key", "GET, HEAD, OPTIONS"],
      ["GET", "scan_encrypted", "POST, OPTIONS"],
      ["HEAD", "download_encrypted", "POST, OPTIONS"],
    ] as const) {
      const answer = await gateway.get(path, TOKEN, { method });
      expect([answer.status, answer.headers.get("allow")], `${method} ${path}`).toEqual([405, allow]);
      if (method !== "HEAD") expect(answer.json).toEqual(unrecognized);
    }
  });

  it("a request that is hardly HTTP gets an error and a report, and the listener stays up", async () => {
    await using gateway = await startHarness();
    const status = await rawStatus(`${gateway.url}/x`, "", { host: "a b c" });
    expect(status).toBe(400);
    expect(gateway.reports).toMatchObject([{ status: 400, error: { code: "bad_request" } }]);
    expect((await gateway.get("public_key")).status).toBe(200);
  });
});

/** The status of a request whose path and headers go out as they are. */
function rawStatus(url: string, path: string, headers: Record<string, string> = {}): Promise<number | undefined> {
  const { hostname, port, pathname } = new URL(url);
  return new Promise((resolve, reject) => {
    const request = rawRequest({ hostname, port, path: pathname + path, headers }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    request.on("error", reject).end();
  });
}
