import { randomBytes } from "node:crypto";
import { crc32 } from "node:zlib";
import { describe, expect, it } from "vitest";
import { GatewayError } from "../../src/errors.ts";
import { EICAR } from "../../src/scan/canary-samples.ts";
import type { PolicyOptions } from "../../src/scan/policy.ts";
import { zip } from "../../src/scan/zip.ts";
import { encryptFile } from "../support/encrypted-file.ts";
import { FakeScanner } from "../support/fake-scanner.ts";
import { type Harness, type HarnessOptions, startHarness, TOKEN } from "../support/harness.ts";

const PDF = Buffer.from("%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "latin1");
const PNG = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==", "base64");
const GIF = Buffer.from("GIF89a\x01\0\x01\0\x80\0\0\xff\xff\xff\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;", "latin1");
const RTF = Buffer.from("{\\rtf1\\ansi hello}");
const OLE = Buffer.concat([
  Buffer.from("d0cf11e0a1b11ae1", "hex"),
  Buffer.alloc(16),
  Buffer.from("3e000300feff0900", "hex"),
  Buffer.alloc(2000),
]);
const DOCX = archive("[Content_Types].xml", "_rels/.rels", "word/document.xml");
const OPEN_DOCUMENT = Buffer.concat([
  Buffer.from("PK\x03\x04\x14\0\0\0\0\0\0\0!\0^\xc62\x0c'\0\0\0'\0\0\0\x08\0\0\0", "latin1"),
  Buffer.from("mimetypeapplication/vnd.oasis.opendocument.text"),
]);
const ARCHIVE = archive("a.txt");
/** What the scanner takes out. */
const MACRO = Buffer.from("/OpenAction");
const SMALL = Buffer.concat([PDF, MACRO]);
const LARGE = Buffer.concat([SMALL, randomBytes(3 << 20)]);
const BLOCKED = { reason: "MCS_MEDIA_NOT_CLEAN", info: "The scanner replaced the media, so it is blocked" };

interface Setting {
  readonly gateway: Harness;
  readonly cdr: FakeScanner;
  readonly antivirus: FakeScanner;
}

/** One scanner that sanitises beside one that does not. */
async function start(policy: Partial<PolicyOptions> = {}, more: Omit<HarnessOptions, "policy" | "scanners"> = {}): Promise<Setting> {
  const [cdr, antivirus] = [sanitiser(), new FakeScanner("antivirus")];
  return {
    gateway: await startHarness({ scanners: [cdr, antivirus], policy: { onModified: "deliver", ...policy }, ...more }),
    cdr,
    antivirus,
  };
}

/** One scanner that sanitises, and nobody else. */
async function startAlone(policy: Partial<PolicyOptions> = {}): Promise<Omit<Setting, "antivirus">> {
  const cdr = sanitiser();
  return { gateway: await startHarness({ scanners: [cdr], policy: { onModified: "deliver", ...policy } }), cdr };
}

function sanitiser(): FakeScanner {
  const cdr = new FakeScanner("cdr");
  cdr.replaces = (media) => {
    const at = media.indexOf(MACRO);
    return at < 0 ? undefined : Buffer.concat([media.subarray(0, at), media.subarray(at + MACRO.length)]);
  };
  return cdr;
}

function archive(...names: string[]): Buffer {
  const data = Buffer.from("<x/>");
  const files = names.map(
    (name) => ({ name, method: 0, encrypted: false, packed: data.length, crc: crc32(data), size: data.length, data }) as const,
  );
  return zip(files, "");
}

async function expectNothingSpooled(gateway: Harness): Promise<void> {
  await expect.poll(() => gateway.spooled()).toMatchObject({ memory: 0, disk: 0 });
}

/** Blocked for bytes, not clean as a verdict, each time anew, and nothing left. */
async function expectBlocked(gateway: Harness, bytes: Buffer): Promise<void> {
  const mxc = gateway.put(bytes);
  for (let round = 0; round < 2; round += 1) {
    const download = await gateway.get(`download/${mxc}`, TOKEN);
    expect([download.status, download.json]).toEqual([403, BLOCKED]);
    expect((await gateway.get(`scan/${mxc}`, TOKEN)).json).toEqual({ clean: false, info: BLOCKED.info });
  }
  expect(new Set(gateway.reports.map(({ journal }) => journal.verdict))).toEqual(new Set(["modified"]));
  await expectNothingSpooled(gateway);
}

describe("on_modified: deliver", () => {
  it("hands on what the scanner made of plain media, whatever its size, and never keeps that", async () => {
    for (const bytes of [SMALL, LARGE]) {
      const { gateway: started, cdr, antivirus } = await start();
      await using gateway = started;
      const sanitised = Buffer.concat([PDF, bytes.subarray(SMALL.length)]);
      const mxc = gateway.put(bytes);
      for (let round = 1; round <= 2; round += 1) {
        const download = await gateway.get(`download/${mxc}`, TOKEN);
        expect([download.status, download.body.equals(sanitised)]).toEqual([200, true]);
        expect(download.headers.get("content-length")).toBe(String(sanitised.length));
        const head = await gateway.get(`download/${mxc}`, TOKEN, { method: "HEAD" });
        expect([head.status, head.headers.get("content-length")]).toEqual([200, String(sanitised.length)]);
        const scan = await gateway.get(`scan/${mxc}`, TOKEN);
        expect([scan.status, scan.json["clean"], scan.json["info"]]).toEqual([200, true, expect.stringContaining("sanitised")]);
        // Both have seen both.
        for (const { scanned } of [cdr, antivirus]) {
          expect(scanned.filter((seen) => seen.equals(sanitised))).toHaveLength(3 * round);
          expect(scanned.filter((seen) => seen.equals(bytes))).toHaveLength(3 * round);
        }
      }
      expect(new Set(gateway.reports.map(({ journal }) => journal.verdict))).toEqual(new Set(["sanitised"]));
      await expectNothingSpooled(gateway);
    }
  });

  it("gives it the type of its own bytes, and the original's file name only if that is the same type", async () => {
    const { gateway: started, cdr } = await start();
    await using gateway = started;
    const claims = { contentType: "text/html", contentDisposition: 'attachment; filename="plan.pdf"' };
    const same = await gateway.get(`download/${gateway.put(SMALL, claims)}`, TOKEN);
    expect(same.headers.get("content-type")).toBe("application/pdf");
    expect(same.headers.get("content-disposition")).toContain("plan.pdf");
    cdr.replaces = (media) => (media.equals(RTF) ? PDF : undefined);
    const other = await gateway.get(`download/${gateway.put(RTF, claims)}`, TOKEN);
    expect([other.headers.get("content-type"), other.body.equals(PDF)]).toEqual(["application/pdf", true]);
    expect(other.headers.get("content-disposition")).not.toContain("plan");
  });

  it("takes in the stead of a file what a sanitiser makes of such a file", async () => {
    const { gateway: started, cdr } = await start();
    await using gateway = started;
    for (const [original, made] of [
      [PNG, GIF],
      [RTF, Buffer.concat([RTF, Buffer.from(" ")])],
      [OLE, DOCX],
      [DOCX, PDF],
      [PDF, OPEN_DOCUMENT],
      // Known for no more than an archive.
      [DOCX, ARCHIVE],
      [ARCHIVE, DOCX],
    ] as const) {
      cdr.replaces = (media) => (media.equals(original) ? made : undefined);
      const download = await gateway.get(`download/${gateway.put(original)}`, TOKEN);
      expect([download.status, download.body.equals(made)]).toEqual([200, true]);
    }
  });

  it("takes the only scanner's, once that says that it is clean", async () => {
    const { gateway: started, cdr } = await startAlone();
    await using gateway = started;
    const download = await gateway.get(`download/${gateway.put(SMALL)}`, TOKEN);
    expect([download.status, download.body.equals(PDF)]).toEqual([200, true]);
    expect(cdr.scanned).toEqual([SMALL, PDF]);
  });

  it("lets clean media through as it is, and keeps that", async () => {
    const { gateway: started, cdr } = await start();
    await using gateway = started;
    const mxc = gateway.put(PDF);
    for (let round = 0; round < 2; round += 1) expect((await gateway.get(`download/${mxc}`, TOKEN)).body.equals(PDF)).toBe(true);
    expect(cdr.scanned).toHaveLength(1);
  });

  it("is not for encrypted media, even when plain media with the same content is scanned at the same time", async () => {
    const { gateway: started, cdr, antivirus } = await start();
    await using gateway = started;
    const release = Promise.withResolvers<void>();
    antivirus.hold = release.promise;
    const file = await encryptFile(SMALL);
    const body = { file: file.file(gateway.put(file.ciphertext)) };
    const encrypted = gateway.post("download_encrypted", body, TOKEN);
    await expect.poll(() => antivirus.begun).toBe(1);
    const plain = gateway.get(`download/${gateway.put(SMALL)}`, TOKEN);
    await expect.poll(() => antivirus.begun).toBe(2);
    const again = gateway.post("scan_encrypted", { file: file.file(gateway.put(file.ciphertext)) }, TOKEN);
    release.resolve();
    expect((await encrypted).json).toEqual(BLOCKED);
    expect((await again).json).toEqual({ clean: false, info: BLOCKED.info });
    expect((await plain).body.equals(PDF)).toBe(true);
    expect(cdr.offered.filter(({ place }) => place)).toHaveLength(1);
    await expectNothingSpooled(gateway);
  });

  it("gives each who asks at once what was made of their own media, and those who may not read it nothing", async () => {
    for (const bytes of [SMALL, LARGE]) {
      const { gateway: started, cdr } = await start();
      await using gateway = started;
      const release = Promise.withResolvers<void>();
      cdr.hold = release.promise;
      let made = 0;
      cdr.replaces = (media) => (media.includes(MACRO) ? Buffer.from(`%PDF-1.4\nfor one alone: ${(made += 1)}`) : undefined);
      const mxc = gateway.put(bytes, { readers: [TOKEN] });
      // The same content again, as another source.
      const copy = gateway.put(bytes);
      const leader = gateway.get(`scan/${mxc}`, TOKEN);
      await expect.poll(() => cdr.begun).toBeGreaterThan(0);
      const answers = [mxc, mxc, copy, mxc, copy].map((one) => gateway.get(`download/${one}`, TOKEN));
      const verdict = gateway.get(`scan/${mxc}`, TOKEN);
      gateway.homeserver.addToken("bob");
      const strangers = ["mallory", "bob"].map((token) => gateway.get(`download/${mxc}`, token));
      release.resolve();
      expect([(await leader).json["clean"], (await verdict).json["clean"]]).toEqual([true, true]);
      const bodies = (await Promise.all(answers)).map(({ body }) => body.toString());
      for (const body of bodies) expect(body).toMatch(/^%PDF-1\.4\nfor one alone: \d+$/);
      expect(new Set(bodies).size).toBe(bodies.length);
      expect((await Promise.all(strangers)).map(({ status }) => status)).toEqual([401, 502]);
      await expectNothingSpooled(gateway);
    }
  });
});

describe("a replacement that is not handed on", () => {
  const lenient = { onUnavailable: "allow", onUnscannable: "allow" } as const;

  it("because the operator did not ask for it: the scanner gets no place for one", async () => {
    const { gateway: started, cdr } = await start({ onModified: "block" });
    await using gateway = started;
    await expectBlocked(gateway, SMALL);
    expect(cdr.offered.some(({ place }) => place)).toBe(false);
  });

  it("because another scanner has something against it, or against the original, or sends one of its own", async () => {
    const cases: readonly ((setting: Setting) => void)[] = [
      ({ cdr }) => {
        cdr.finds = Buffer.from("something else");
        cdr.replaces = (media) => (media.includes(MACRO) ? Buffer.concat([PDF, EICAR]) : undefined);
      },
      ({ antivirus }) => (antivirus.replaces = (media) => (media.includes(MACRO) ? undefined : PNG)),
      ({ antivirus }) => (antivirus.replaces = () => PNG),
      ({ antivirus }) => (antivirus.unscannable = "for a reason"),
      ({ antivirus }) => (antivirus.modified = "for a reason"),
      ({ cdr }) => (cdr.modified = "without a word, and without anything in its stead"),
    ];
    for (const arrange of cases) {
      for (const bytes of [SMALL, LARGE]) {
        const setting = await start(lenient);
        await using gateway = setting.gateway;
        arrange(setting);
        await expectBlocked(gateway, bytes);
      }
    }
  });

  it("because its maker does not say that it is clean, whoever else does", async () => {
    const infected = Buffer.concat([SMALL, EICAR]);
    const cases: readonly [Buffer, (cdr: FakeScanner) => void][] = [
      [infected, (cdr) => (cdr.replaces = (media) => (media.equals(infected) ? Buffer.concat([infected, Buffer.from("\n")]) : undefined))],
      [SMALL, (cdr) => (cdr.replaces = (media) => Buffer.concat([media, Buffer.from("\n")]))],
      [
        SMALL,
        (cdr) => {
          cdr.replaces = (media) => (media.equals(SMALL) ? Buffer.concat([PDF, RTF]) : undefined);
          cdr.unreadable = RTF;
        },
      ],
    ];
    for (const [bytes, arrange] of cases) {
      const alone = await startAlone(lenient);
      await using onlyOne = alone.gateway;
      arrange(alone.cdr);
      await expectBlocked(onlyOne, bytes);
      const setting = await start(lenient);
      await using oneOfTwo = setting.gateway;
      arrange(setting.cdr);
      setting.antivirus.finds = Buffer.from("something else");
      await expectBlocked(oneOfTwo, bytes);
    }
  });

  it("because of its type, of its size, or of there being nothing in it", async () => {
    for (const [policy, made] of [
      [{ blockedTypes: ["text/rtf"] }, RTF],
      [{ allowedTypes: ["application/pdf"] }, RTF],
      [{}, randomBytes((4 << 20) + 1)],
      [{}, Buffer.alloc(0)],
    ] as const) {
      for (const bytes of [SMALL, LARGE]) {
        const { gateway: started, cdr } = await start({ ...lenient, ...policy }, { pipeline: { maxFileSize: 4 << 20 } });
        await using gateway = started;
        cdr.replaces = (media) => (media.equals(bytes) ? made : undefined);
        await expectBlocked(gateway, bytes);
      }
    }
  });

  it("because the scanner never said that it was all", async () => {
    const { gateway: started, cdr } = await start();
    await using gateway = started;
    cdr.unended = true;
    await expectBlocked(gateway, SMALL);
  });

  it("because a scanner can't look at it: 503, whatever the operator lets pass", async () => {
    for (const code of ["scanner_unavailable", "beyond_proof"] as const) {
      for (const bytes of [SMALL, LARGE]) {
        const { gateway: started, cdr, antivirus } = await start(lenient);
        await using gateway = started;
        const mxc = gateway.put(bytes);
        for (const [scanner, overOriginal] of [
          [antivirus, true],
          [antivirus, false],
          [cdr, false],
        ] as const) {
          scanner.failsOver = (media) => (media.equals(bytes) === overOriginal ? new GatewayError(code) : undefined);
          expect((await gateway.get(`download/${mxc}`, TOKEN)).status).toBe(503);
          scanner.failsOver = undefined;
        }
        expect((await gateway.get(`download/${mxc}`, TOKEN)).status).toBe(200);
        await expectNothingSpooled(gateway);
      }
    }
  });

  it("because its only scanner can't look at it: 503, whatever the operator lets pass", async () => {
    for (const code of ["scanner_unavailable", "beyond_proof"] as const) {
      const { gateway: started, cdr } = await startAlone(lenient);
      await using gateway = started;
      cdr.failsOver = (media) => (media.equals(PDF) ? new GatewayError(code) : undefined);
      expect((await gateway.get(`download/${gateway.put(SMALL)}`, TOKEN)).status).toBe(503);
      await expectNothingSpooled(gateway);
    }
  });

  it("because the original is infected, which is kept", async () => {
    const { gateway: started, cdr } = await start();
    await using gateway = started;
    const mxc = gateway.put(Buffer.concat([SMALL, EICAR]));
    for (let round = 0; round < 2; round += 1) {
      expect((await gateway.get(`scan/${mxc}`, TOKEN)).json).toEqual({ clean: false, info: "***VIRUS DETECTED***" });
    }
    expect(cdr.begun).toBe(1);
    await expectNothingSpooled(gateway);
  });

  it("because nobody waits for it any more", async () => {
    for (const bytes of [SMALL, LARGE]) {
      const { gateway: started, cdr, antivirus } = await start({}, { pipeline: { wait: 200 } });
      await using gateway = started;
      const release = Promise.withResolvers<void>();
      antivirus.hold = release.promise;
      expect((await gateway.get(`download/${gateway.put(bytes)}`, TOKEN)).status).toBe(503);
      expect(cdr.scanned).toHaveLength(1);
      release.resolve();
      await expect.poll(() => antivirus.scanned.length).toBe(2);
      await expectNothingSpooled(gateway);
    }
  });

  it("because the original did not come to its end", async () => {
    const { gateway: started, cdr, antivirus } = await start({}, { bodyIdle: 1500 });
    await using gateway = started;
    for (const scanner of [cdr, antivirus]) scanner.impatient = true;
    const download = gateway.get(`download/${gateway.put(LARGE, { behaviour: { stallAfter: 1 << 20 } })}`, TOKEN);
    // The other one has passed what is to come in its stead.
    await expect.poll(() => antivirus.scanned.length).toBe(2);
    expect((await download).status).toBe(502);
    await expectNothingSpooled(gateway);
  });

  it("because it may be a page, whatever it stands in the stead of", async () => {
    const { gateway: started, cdr } = await start();
    await using gateway = started;
    const html = "<!DOCTYPE html><html><body>Blocked</body></html>";
    const pages = [
      html,
      `<?xml version="1.0"?>\n<html xmlns="http://www.w3.org/1999/xhtml"><head><title>Blocked</title></head><body>x</body></html>`,
      `<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd">\n<html xmlns="http://www.w3.org/1999/xhtml"><body>Blocked</body></html>`,
      '<?xml version="1.0"?><error>blocked</error>',
      '{"error":"blocked"}',
      '<svg xmlns="http://www.w3.org/2000/svg"><text>Blocked</text></svg>',
      "This file was blocked by your administrator.\n",
      "\u001B[1mBlocked\u001B[0m by\u0001 AV",
    ].map((page) => Buffer.from(page));
    pages.push(Buffer.from(`\u{FEFF}${html}`, "utf16le"), Buffer.from(html, "utf16le"));
    for (const page of pages) {
      cdr.replaces = (media) => (media.equals(page) ? undefined : page);
      // Of another type, of its own, and of none that is known.
      for (const original of [PDF, Buffer.concat([page, Buffer.from("  ")]), Buffer.from([3, 2, 1, 0, 255]), PNG])
        await expectBlocked(gateway, original);
    }
  });

  it("because it is no such file as the original", async () => {
    const { gateway: started, cdr } = await start();
    await using gateway = started;
    for (const [original, made] of [
      [PDF, PNG],
      [PNG, PDF],
      [ARCHIVE, PDF],
      [PDF, ARCHIVE],
      [Buffer.from("This is the plan.\n"), PDF],
      [Buffer.from([3, 2, 1, 0, 255]), PNG],
    ] as const) {
      cdr.replaces = (media) => (media.equals(original) ? made : undefined);
      await expectBlocked(gateway, original);
    }
  });
});
