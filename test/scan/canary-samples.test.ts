import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildCanary, CANARY_KINDS, type CanaryKind } from "../../src/scan/canary-samples.ts";
import { machine } from "../support/peers/choose-machine.ts";
import { type Clamd, EICAR_THREAT, startClamd } from "../support/peers/clamd.ts";

const sevens = (size: number): Buffer => Buffer.alloc(size, 7);
/** What the encrypted canary's password is made of. */
const PASSWORD = sevens(8).toString("hex");

const sha256 = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");
const EICAR_SHA256 = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f";

/** Info-ZIP's opinion. @throws Error when it finds fault with the archive */
async function unzip(kind: CanaryKind, options: readonly string[], ...members: string[]): Promise<string> {
  const where = await machine();
  const directory = await where.makeDirectory();
  try {
    await where.write(`${directory}/canary.zip`, buildCanary(kind, sevens).bytes);
    return await where.run(["unzip", ...options, `${directory}/canary.zip`, ...members]);
  } finally {
    await where.remove(directory);
  }
}

describe("a canary", () => {
  it("plain is EICAR's 68 bytes, always", () => {
    const { bytes } = buildCanary("plain");
    expect(bytes).toHaveLength(68);
    expect(sha256(bytes)).toBe(EICAR_SHA256);
  });

  it.each(CANARY_KINDS.filter((kind) => kind !== "plain"))("%s differs each time, and only by its randomness", (kind) => {
    expect(sha256(buildCanary(kind).bytes)).not.toBe(sha256(buildCanary(kind).bytes));
    expect(sha256(buildCanary(kind, sevens).bytes)).toBe(sha256(buildCanary(kind, sevens).bytes));
  });

  it.each<[CanaryKind, string, string]>([
    ["plain", "text/plain", "txt"],
    ["zip", "application/zip", "zip"],
    ["pdf", "application/pdf", "pdf"],
    ["png", "image/png", "png"],
    ["trailing", "application/zip", "zip"],
    ["expand", "application/zip", "zip"],
    ["encrypted", "application/zip", "zip"],
  ])("%s is %s", (kind, mime, extension) => {
    expect(buildCanary(kind).type).toEqual({ mime, extension });
  });

  it("is never large", () => {
    expect(buildCanary("expand").bytes.length).toBeLessThan(700 * 1024);
    expect(buildCanary("trailing").bytes.length).toBeLessThan(3_001_000);
  });
});

describe("to Info-ZIP", () => {
  it("zip is sound and holds EICAR", async () => {
    expect(await unzip("zip", ["-t"])).toContain("No errors detected");
    expect(sha256(Buffer.from(await unzip("zip", ["-p"]), "latin1"))).toBe(EICAR_SHA256);
  });

  it("png is sound, although a picture stands before it, and holds EICAR", async () => {
    expect(await unzip("png", ["-t"])).toContain("No errors detected");
    expect(sha256(Buffer.from(await unzip("png", ["-p"]), "latin1"))).toBe(EICAR_SHA256);
  });

  it("trailing is sound and has EICAR behind 3 MB", async () => {
    expect(await unzip("trailing", ["-t"])).toContain("No errors detected");
    const files = (await unzip("trailing", ["-l"])).match(/^ *\d+ .*\.(bin|com)$/gm) ?? [];
    expect(files.map((line) => Number.parseInt(line, 10))).toEqual([3_000_000, 68]);
    expect(sha256(Buffer.from(await unzip("trailing", ["-p"], "*.com"), "latin1"))).toBe(EICAR_SHA256);
  });

  it("expand is sound, unpacks to 640 MiB in small files of different names, and has EICAR behind them", async () => {
    expect(await unzip("expand", ["-t"])).toContain("No errors detected");
    const files = (await unzip("expand", ["-l"])).match(/^ *\d+ .*\.(bin|com)$/gm) ?? [];
    expect(files.map((line) => Number.parseInt(line, 10))).toEqual([...Array<number>(40).fill(16 * 1024 * 1024), 68]);
    expect(new Set(files.map((line) => line.split(/\s+/).at(-1))).size).toBe(41);
    expect(sha256(Buffer.from(await unzip("expand", ["-p"], "*.com"), "latin1"))).toBe(EICAR_SHA256);
  });

  it("encrypted is sound for who has the password, and for nobody else", async () => {
    expect(await unzip("encrypted", ["-t", "-P", PASSWORD])).toContain("No errors detected");
    expect(sha256(Buffer.from(await unzip("encrypted", ["-p", "-P", PASSWORD]), "latin1"))).toBe(EICAR_SHA256);
    await expect(unzip("encrypted", ["-t", "-P", "infected"])).rejects.toThrow();
  });
});

describe("as a PDF", () => {
  const text = buildCanary("pdf").bytes.toString("latin1");

  it("every object is where the cross-reference table says", () => {
    const start = Number(/startxref\n(\d+)\n%%EOF\n$/.exec(text)?.[1]);
    const table = /^xref\n0 (\d+)\n0{10} 65535 f \n((?:\d{10} 00000 n \n)+)trailer\n/.exec(text.slice(start));
    const offsets = table?.[2]?.match(/^\d{10}/gm)?.map(Number) ?? [];
    expect(offsets).toHaveLength(Number(table?.[1]) - 1);
    for (const [index, offset] of offsets.entries()) {
      expect(text.slice(offset)).toMatch(new RegExp(`^${index + 1} 0 obj\n`));
    }
  });

  it("the embedded file has the length it says and is EICAR", () => {
    const [whole = "", length] = /\/EmbeddedFile \/Length (\d+) .*\nstream\n/.exec(text) ?? [];
    const from = text.indexOf(whole) + whole.length;
    const file = text.slice(from, from + Number(length));
    expect(sha256(Buffer.from(file, "latin1"))).toBe(EICAR_SHA256);
    expect(text.slice(from + file.length)).toMatch(/^\nendstream\nendobj\n/);
  });
});

describe("as a PNG", () => {
  it("it is a whole picture, every chunk of which has the checksum that it says", () => {
    const { bytes } = buildCanary("png");
    expect(bytes.subarray(0, 8).toString("latin1")).toBe("\x89PNG\r\n\x1a\n");
    const chunks: string[] = [];
    for (let at = 8; chunks.at(-1) !== "IEND"; at += bytes.readUInt32BE(at) + 12) {
      const checked = bytes.subarray(at + 4, at + 8 + bytes.readUInt32BE(at));
      expect(bytes.readUInt32BE(at + 4 + checked.length)).toBe(crc32(checked));
      chunks.push(checked.toString("latin1", 0, 4));
    }
    expect(chunks).toEqual(["IHDR", "IDAT", "IEND"]);
  });
});

/** Without AlertExceedsMax and AlertEncrypted: what clamd has built in, and what Debian's package sets. */
const DEFAULTS = {
  "clamd's own limits": { StreamMaxLength: "100M", MaxFileSize: "100M", MaxScanSize: "400M" },
  "Debian's limits": { StreamMaxLength: "25M", MaxFileSize: "25M", MaxScanSize: "100M" },
  "the limits in docker/": {},
};

describe.each(Object.entries(DEFAULTS))("to clamd with %s", (_, limits) => {
  let alerting: Clamd;
  let silent: Clamd;
  beforeAll(async () => {
    alerting = await startClamd({ settings: limits });
    silent = await startClamd({ settings: { ...limits, AlertExceedsMax: undefined, AlertEncrypted: undefined } });
  });
  afterAll(async () => {
    await alerting?.stop();
    await silent?.stop();
  });

  it.each<CanaryKind>(["plain", "zip", "pdf", "png", "trailing"])("%s is EICAR", async (kind) => {
    expect(await alerting.scan(buildCanary(kind).bytes)).toBe(`stream: ${EICAR_THREAT} FOUND`);
    expect(await silent.scan(buildCanary(kind).bytes)).toBe(`stream: ${EICAR_THREAT} FOUND`);
  });

  it("expand is reported with AlertExceedsMax only, the second time too", async () => {
    for (let round = 0; round < 2; round++) {
      const { bytes } = buildCanary("expand");
      expect(await alerting.scan(bytes)).toBe("stream: Heuristics.Limits.Exceeded.MaxScanSize FOUND");
      expect(await silent.scan(bytes)).toBe("stream: OK");
    }
  });

  it("encrypted is reported with AlertEncrypted only", async () => {
    const { bytes } = buildCanary("encrypted");
    expect(await alerting.scan(bytes)).toBe("stream: Heuristics.Encrypted.Zip FOUND");
    expect(await silent.scan(bytes)).toBe("stream: OK");
  });
});
