/** Files that nobody can tell what they are, on the homeserver's own paths: handed on, or only to be had by the scanner API. */
import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { png } from "../e2e/png.ts";
import { encryptFile } from "../support/encrypted-file.ts";
import { type Harness, startHarness, TOKEN } from "../support/harness.ts";

const OPAQUE = {
  errcode: "M_FORBIDDEN",
  error: expect.stringContaining("Encrypted files"),
  reason: "MCS_MIME_TYPE_FORBIDDEN",
  info: expect.stringContaining("Encrypted files"),
};
const DOWNLOAD = "/_matrix/client/v1/media/download";
/** Random bytes, and such that libmagic knows nothing of them. */
const ciphertextOf = (size: number): Buffer => Buffer.concat([Buffer.of(0x92), randomBytes(size - 1)]);

function start(onOpaque: "pass" | "block"): Promise<Harness> {
  return startHarness({ transparent: { onOpaque } });
}

describe("on_opaque", () => {
  it("pass: ciphertext is handed on as it is", async () => {
    await using gateway = await start("pass");
    const bytes = ciphertextOf(2_000_000);
    const mxc = gateway.put(bytes);
    for (const round of ["scanned", "known"]) expect((await gateway.get(`${DOWNLOAD}/${mxc}`, TOKEN)).body.equals(bytes), round).toBe(true);
  });

  it("block: what is refused, or only asked for by HEAD, takes no room that media is held in", async () => {
    await using gateway = await startHarness({ transparent: { onOpaque: "block" }, authorizationTtl: 60_000, mediaMemory: 4 << 20 });
    for (let round = 0; round < 6; round += 1) {
      expect((await gateway.get(`${DOWNLOAD}/${gateway.put(ciphertextOf(1_000_000))}`, TOKEN)).status).toBe(403);
      const text = gateway.put(Buffer.from(`${round} `.repeat(300_000)));
      expect((await gateway.get(`${DOWNLOAD}/${text}`, TOKEN, { method: "HEAD" })).status).toBe(200);
    }
    const mxc = gateway.put(Buffer.from("some text ".repeat(100_000)));
    await gateway.get(`${DOWNLOAD}/${mxc}`, TOKEN);
    const asked = gateway.homeserver.requests.length;
    expect((await gateway.get(`${DOWNLOAD}/${mxc}`, TOKEN)).status).toBe(200);
    expect(gateway.homeserver.requests.length).toBe(asked);
  });

  it.each([[100], [40_000], [900_000], [3_000_000]])("block: no byte of %i bytes of ciphertext leaves, known or not", async (size) => {
    await using gateway = await start("block");
    for (const first of ["client", "scanner"] as const) {
      const bytes = ciphertextOf(size);
      const mxc = gateway.put(bytes);
      if (first === "scanner") expect((await gateway.get(`download/${mxc}`, TOKEN)).body.equals(bytes)).toBe(true);
      for (let round = 0; round < 3; round += 1) {
        const answer = await gateway.get(`${DOWNLOAD}/${mxc}`, TOKEN);
        expect([answer.status, answer.json]).toEqual([403, OPAQUE]);
        const head = await gateway.get(`${DOWNLOAD}/${mxc}`, TOKEN, { method: "HEAD" });
        // Of the error that a GET would get.
        expect([head.status, Number(head.headers.get("content-length")) < 1000]).toEqual([403, true]);
      }
      // It is no verdict: the scanner API hands it on, and one scan was enough.
      expect((await gateway.get(`scan/${mxc}`, TOKEN)).json).toEqual({ clean: true, info: "File is clean" });
      expect((await gateway.get(`download/${mxc}`, TOKEN)).body.equals(bytes)).toBe(true);
      expect(gateway.scanner.scanned.filter((scanned) => scanned.equals(bytes))).toHaveLength(1);
    }
    await expect.poll(() => gateway.spooled()).toEqual(expect.objectContaining({ memory: 0, disk: 0 }));
    await expect.poll(() => gateway.reports.filter(({ error }) => error?.code === "opaque").length).toBe(12);
  });

  it("block: what has a type passes, at once and when it is known, and HEAD with it", async () => {
    await using gateway = await start("block");
    const files = {
      nothing: Buffer.alloc(0),
      "one letter": Buffer.from("a"),
      text: Buffer.from("a harmless text\n"),
      "text of many bytes": Buffer.from("né ".repeat(500_000)),
      "a picture": png(200),
      "a zip of many bytes": Buffer.concat([Buffer.from("PK\u0003\u0004\u0014\0\0\0\u0008\0", "latin1"), randomBytes(3_000_000)]),
    };
    for (const [name, bytes] of Object.entries(files)) {
      const mxc = gateway.put(bytes);
      for (const round of ["scanned", "known", "known"]) {
        const answer = await gateway.get(`${DOWNLOAD}/${mxc}`, TOKEN);
        expect([answer.status, answer.body.equals(bytes)], `${name}, ${round}`).toEqual([200, true]);
        const head = await gateway.get(`${DOWNLOAD}/${mxc}`, TOKEN, { method: "HEAD" });
        expect([head.status, head.headers.get("content-length"), head.body.length], name).toEqual([200, String(bytes.length), 0]);
      }
    }
    await expect.poll(() => gateway.spooled()).toEqual(expect.objectContaining({ memory: 0, disk: 0 }));
  });

  it("block: it is the thumbnail that counts, not what it was made of", async () => {
    await using gateway = await start("block");
    const thumbnail = { bytes: png(32), contentType: "image/png" };
    const query = "width=32&height=32";
    const path = "/_matrix/media/v3/thumbnail";
    const sound = gateway.put(ciphertextOf(100), { thumbnail, unauthenticated: true });
    const hollow = gateway.put(png(200), { thumbnail: { ...thumbnail, bytes: ciphertextOf(100) }, unauthenticated: true });
    for (const round of ["scanned", "known"]) {
      expect((await gateway.get(`${path}/${sound}?${query}`)).body.equals(thumbnail.bytes), round).toBe(true);
      expect((await gateway.get(`${path}/${hollow}?${query}`)).json, round).toEqual(OPAQUE);
    }
  });

  it("block: encrypted files are to be had by the scanner API, which looks inside", async () => {
    await using gateway = await start("block");
    const { ciphertext, file } = await encryptFile(png(200));
    const mxc = gateway.put(ciphertext);
    const body = { file: file(mxc) };
    for (const round of ["scanned", "known"]) {
      expect((await gateway.post("download_encrypted", body, TOKEN)).body.equals(ciphertext), round).toBe(true);
    }
  });

  it("block: what nobody may read, and what is infected, is still told as that", async () => {
    await using gateway = await start("block");
    gateway.scanner.finds = Buffer.of(0x92, 1, 2, 3);
    const infected = gateway.put(Buffer.concat([gateway.scanner.finds, randomBytes(100)]));
    for (const round of ["scanned", "known"]) {
      expect((await gateway.get(`${DOWNLOAD}/${infected}`, TOKEN)).json["reason"], round).toBe("MCS_MEDIA_NOT_CLEAN");
      expect((await gateway.get(`${DOWNLOAD}/${infected}`)).json["errcode"], round).toBe("M_MISSING_TOKEN");
    }
  });
});
