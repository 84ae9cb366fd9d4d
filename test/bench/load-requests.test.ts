import { createHash } from "node:crypto";
import olm from "@matrix-org/olm";
import { describe, expect, it } from "vitest";
import { Requests } from "../../bench/load-requests.ts";
import type { LoadSpec } from "../../bench/load-spec.ts";
import { TAIL_SIZE, bodyOf, mediaId, tailOf } from "../../bench/media.ts";
import { parseEncryptedFile } from "../../src/crypto/attachment.ts";

const SPEC: LoadSpec = {
  targets: ["http://127.0.0.1:1/api", "http://127.0.0.1:2/other"],
  endpoint: "download",
  size: 5000,
  series: "abcd",
  connections: 3,
  until: { requests: 1 },
};

function sha256Of(id: string): Buffer {
  return createHash("sha256")
    .update(Buffer.concat([...bodyOf(SPEC.size), tailOf(id)]))
    .digest();
}

/** Head and body of a request. */
function cut(bytes: string): { head: string; body: string } {
  const end = bytes.indexOf("\r\n\r\n");
  return { head: bytes.slice(0, end), body: bytes.slice(end + 4) };
}

describe("requests of the load generator", () => {
  it("are for other media each time, from other users, at all targets in turn", async () => {
    const requests = await Requests.prepare(SPEC);
    const heads = [0, 1, 2, 0].map((connection) => cut(requests.next(connection).bytes).head);
    expect(heads.map((head) => head.split(" HTTP/1.1")[0])).toEqual([
      "GET /api/download/bench/5000-abcd-0",
      "GET /other/download/bench/5000-abcd-1",
      "GET /api/download/bench/5000-abcd-2",
      "GET /api/download/bench/5000-abcd-3",
    ]);
    expect(heads.map((head) => /Bearer (\S+)/.exec(head)?.[1])).toEqual(["bench-0", "bench-1", "bench-2", "bench-0"]);
    expect(heads[1]).toContain("\r\nHost: 127.0.0.1:2\r\n");
  });

  it("come back to the same media, if there are so many", async () => {
    const requests = await Requests.prepare({ ...SPEC, endpoint: "thumbnail", media: 2 });
    const tails = Array.from({ length: 4 }, () => requests.next(0).tail?.toString());
    expect(tails).toEqual([0, 1, 0, 1].map((number) => `5000-abcd-${number}`.padEnd(TAIL_SIZE, ".")));
  });

  it("expect no media of a scan", async () => {
    expect((await Requests.prepare({ ...SPEC, endpoint: "scan" })).next(0).tail).toBeUndefined();
  });

  it("bring media, for the answer that only its last byte gives", async () => {
    const requests = await Requests.prepare({ ...SPEC, endpoint: "upload" });
    const { bytes, media = [], uri } = requests.next(1);
    const id = mediaId(SPEC.size, SPEC.series, 0);
    expect(bytes).toMatch(/^POST \/_matrix\/media\/v3\/upload HTTP\/1\.1\r\n/);
    expect(bytes).toContain(`\r\nContent-Length: ${SPEC.size}\r\n`);
    expect(Buffer.concat(media)).toEqual(Buffer.concat([...bodyOf(SPEC.size), tailOf(id)]));
    expect(uri).toBe(`mxc://bench/${id}`);
  });

  it("bring a file in a form", async () => {
    const requests = await Requests.prepare({ ...SPEC, endpoint: "scan_file" });
    const { bytes, media = [] } = requests.next(0);
    const { head, body } = cut(bytes);
    const form = await new Response(Buffer.concat([Buffer.from(body), ...media]), {
      headers: { "content-type": /Content-Type: (.*)\r\n/.exec(head)?.[1] ?? "" },
    }).formData();
    expect(head).toContain(`Content-Length: ${body.length + media.reduce((sum, part) => sum + part.length, 0)}`);
    expect(Buffer.from((form.get("file") as string).slice(-TAIL_SIZE))).toEqual(tailOf(mediaId(SPEC.size, SPEC.series, 0)));
  });

  it("name hash, key and IV of encrypted media", async () => {
    const requests = await Requests.prepare({ ...SPEC, endpoint: "download_encrypted" });
    for (const number of [0, 1]) {
      const { head, body } = cut(requests.next(1).bytes);
      expect(head).toMatch(/^POST \/other\/download_encrypted HTTP\/1\.1\r\n/);
      expect(head).toContain(`Content-Length: ${Buffer.byteLength(body)}`);
      const { url, attachment } = parseEncryptedFile((JSON.parse(body) as { file: unknown }).file);
      const id = mediaId(SPEC.size, SPEC.series, number);
      expect(url).toBe(`mxc://bench/${id}`);
      expect(attachment.sha256).toEqual(sha256Of(id));
    }
  });

  it("are encrypted to a public key, no two alike", async () => {
    await olm.init();
    const decryption = new olm.PkDecryption();
    const publicKey = decryption.generate_key();
    const requests = await Requests.prepare({ ...SPEC, endpoint: "scan_encrypted", media: 3, publicKey });
    const bodies = Array.from({ length: 7 }, () => cut(requests.next(0).bytes).body);
    expect(new Set(bodies).size).toBe(7);
    const urls = bodies.map((body) => {
      const { encrypted_body: sealed } = JSON.parse(body) as { encrypted_body: Record<"ephemeral" | "mac" | "ciphertext", string> };
      const { file } = JSON.parse(decryption.decrypt(sealed.ephemeral, sealed.mac, sealed.ciphertext)) as { file: { url: string } };
      return file.url;
    });
    expect(urls).toEqual([0, 1, 2, 0, 1, 2, 0].map((number) => `mxc://bench/5000-abcd-${number}`));
    decryption.free();
  });
});
