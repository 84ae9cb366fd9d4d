import { setImmediate } from "node:timers/promises";
import { crc32 } from "node:zlib";
import { afterAll, describe, expect, it } from "vitest";
import { createTypeDetector, isAllowed, isBlocked, PREFIX_SIZE } from "../../src/media/mime.ts";

const detector = createTypeDetector();
afterAll(() => detector[Symbol.asyncDispose]());

const ZEROS = Buffer.alloc(2000);

function bytes(...parts: (string | Buffer)[]): Buffer {
  return Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part, "latin1") : part)));
}

function hex(text: string): Buffer {
  return Buffer.from(text.replaceAll(" ", ""), "hex");
}

/** A zip archive of stored entries. */
function zip(...entries: [name: string, content: string][]): Buffer {
  const locals: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const [name, text] of entries) {
    const content = Buffer.from(text);
    const fields = Buffer.alloc(26);
    fields.writeUInt16LE(20, 0);
    fields.writeUInt32LE(crc32(content), 10);
    fields.writeUInt32LE(content.length, 14);
    fields.writeUInt32LE(content.length, 18);
    fields.writeUInt16LE(name.length, 22);
    const local = bytes("PK\x03\x04", fields, name, content);
    const rest = Buffer.alloc(14);
    rest.writeUInt32LE(offset, 10);
    directory.push(bytes("PK\x01\x02", hex("1400"), fields, rest, name));
    locals.push(local);
    offset += local.length;
  }
  const end = Buffer.alloc(18);
  end.writeUInt16LE(entries.length, 4);
  end.writeUInt16LE(entries.length, 6);
  end.writeUInt32LE(Buffer.concat(directory).length, 8);
  end.writeUInt32LE(offset, 12);
  return bytes(...locals, ...directory, "PK\x05\x06", end);
}

function portableExecutable(): Buffer {
  const exe = Buffer.alloc(1024);
  exe.write("MZ");
  exe[0x18] = 0x40;
  exe.writeUInt32LE(0x80, 0x3c);
  exe.write("PE\0\0", 0x80);
  hex("6486 0300").copy(exe, 0x84);
  hex("f000 2200 0b02").copy(exe, 0x94);
  exe[0x98 + 68] = 3;
  return exe;
}

function iso(start: string): Buffer {
  const image = Buffer.alloc(PREFIX_SIZE);
  image.write(start, "latin1");
  image.write("CD001", 32_769);
  return image;
}

function officeDocument(main: string, type: string): Buffer {
  const override = `<Override PartName="/${main}" ContentType="application/vnd.openxmlformats-officedocument.${type}.main+xml"/>`;
  const types = `<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">${override}</Types>`;
  return zip(["[Content_Types].xml", types], ["_rels/.rels", "<r/>"], [main, "<x/>"]);
}

const PNG = bytes(hex("89504e470d0a1a0a 0000000d 49484452 00000001 00000001 0802000000"), ZEROS);
const OLE = bytes(hex("d0cf11e0a1b11ae1"), Buffer.alloc(16), hex("3e000300feff0900"), ZEROS);

describe("names are those of the existing scanners' libmagic", () => {
  it.each<[string, string, Buffer]>([
    ["image/png", "png", PNG],
    ["image/jpeg", "jpg", bytes(hex("ffd8ffe000104a46494600010100000100010000ffdb0043"), ZEROS)],
    ["image/gif", "gif", bytes("GIF89a", hex("01000100800000"), ZEROS)],
    ["image/webp", "webp", bytes("RIFF\x24\0\0\0WEBPVP8 ", ZEROS)],
    ["image/vnd.microsoft.icon", "ico", bytes(hex("000001000100101000000100200068040000160000 00"), ZEROS)],
    ["image/heic", "heic", bytes(hex("00000018"), "ftypheic\0\0\0\0mif1heic", ZEROS)],
    ["image/svg+xml", "svg", bytes('<svg xmlns="http://www.w3.org/2000/svg"></svg>')],
    ["video/mp4", "mp4", bytes(hex("00000018"), "ftypisom\0\0\x02\0isommp41", ZEROS)],
    ["video/quicktime", "mov", bytes(hex("00000014"), "ftypqt  \0\0\x02\0qt  ", ZEROS)],
    ["video/webm", "webm", bytes(hex("1a45dfa3 93 42868101 42f78101 4282847765626d 42878102"), ZEROS)],
    ["audio/x-wav", "wav", bytes("RIFF\xf4\x07\0\0WAVEfmt ", hex("10000000 01000100 44ac0000 88580100 02001000"), "data", ZEROS)],
    ["audio/mpeg", "mp3", bytes("ID3\x03\0\0\0\0\0\x0aTIT2\0\0\0\0\0\0", hex("fffb9064"), ZEROS)],
    ["audio/ogg", "ogg", bytes("OggS\0\x02", Buffer.alloc(20), "\x01\x13OpusHead\x01\x02", hex("380180bb0000000000"), ZEROS)],
    ["application/pdf", "pdf", bytes("%PDF-1.7\n1 0 obj\n")],
    ["application/zip", "zip", zip(["a.txt", "hello"])],
    ["application/gzip", "gz", bytes(hex("1f8b0800000000000003"), ZEROS)],
    ["application/x-xz", "xz", bytes(hex("fd377a585a000004e6d6b446"), ZEROS)],
    ["application/x-7z-compressed", "7z", bytes("7z", hex("bcaf271c0004"), ZEROS)],
    ["application/vnd.microsoft.portable-executable", "exe", portableExecutable()],
    ["application/x-iso9660-image", "iso", iso("")],
    ["application/json", "json", bytes('{"a":1,"b":[1,2]}')],
    ["text/plain", "txt", bytes("Hello, this is plain text.\n")],
    ["text/plain", "txt", Buffer.from("\u{FEFF}Grüße aus Köln\n", "utf16le")],
    ["text/plain", "txt", Buffer.from(`a${"日本語".repeat(3000)}`)],
    ["text/html", "html", bytes("<!DOCTYPE html><html><body>x</body></html>")],
    ["text/csv", "csv", bytes("a,b,c\n1,2,3\n4,5,6\n7,8,9\n".repeat(10))],
    ["text/xml", "xml", bytes('<?xml version="1.0"?><a/>')],
    ["text/x-shellscript", "sh", bytes("#!/bin/sh\necho hi\n")],
    ["text/rtf", "rtf", bytes("{\\rtf1\\ansi hello}")],
    ["application/x-empty", "bin", Buffer.alloc(0)],
    ["application/octet-stream", "bin", hex("8a3f01c2b70005f1")],
    ["application/octet-stream", "bin", ZEROS],
  ])("%s, .%s", async (mime, extension, prefix) => {
    expect(await detector.detect(prefix)).toMatchObject({ mime, extension });
  });

  it.each([
    ["wordprocessingml.document", "word/document.xml", "docx"],
    ["spreadsheetml.sheet", "xl/workbook.xml", "xlsx"],
    ["presentationml.presentation", "ppt/presentation.xml", "pptx"],
  ])("Office's %s", async (type, main, extension) => {
    const detected = await detector.detect(officeDocument(main, type));
    expect(detected).toMatchObject({ mime: `application/vnd.openxmlformats-officedocument.${type}`, extension });
  });

  it("only the first bytes count, and of a slice only the slice", async () => {
    const pool = bytes("%PDF-1.7\n", PNG, Buffer.alloc(PREFIX_SIZE), "%PDF-1.7\n");
    expect((await detector.detect(pool.subarray(9))).mime).toBe("image/png");
  });
});

describe("what a file pretends to be", () => {
  it("is an SVG though it begins as XML", async () => {
    const svg = bytes('<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><script>x</script></svg>');
    expect((await detector.detect(svg)).mime).toBe("image/svg+xml");
  });

  it("is a PDF behind leading junk", async () => {
    expect((await detector.detect(bytes("junk\n%PDF-1.7\n1 0 obj\n"))).mime).toBe("application/pdf");
  });

  it("is an executable that carries an archive, and both lists' names catch it", async () => {
    const polyglot = await detector.detect(bytes("MZ", ZEROS.subarray(0, 200), zip(["a.txt", "hello"])));
    for (const name of ["application/x-dosexec", "application/vnd.microsoft.portable-executable", "application/zip"]) {
      expect(isBlocked(polyglot, new Set([name]))).toBe(true);
    }
  });

  it("is a disk image though text comes first", async () => {
    expect((await detector.detect(iso("hello ".repeat(700)))).mime).toBe("application/x-iso9660-image");
  });
});

describe("lists", () => {
  it.each([
    ["application/x-dosexec", portableExecutable()],
    ["application/x-msdownload", portableExecutable()],
    ["application/x-rar", bytes("Rar!\x1a\x07\x01\0", ZEROS)],
    ["application/xml", bytes('<?xml version="1.0"?><a/>')],
    ["audio/wav", bytes("RIFF\xf4\x07\0\0WAVEfmt ", hex("10000000 01000100 44ac0000 88580100 02001000"), "data", ZEROS)],
    ["application/zip", zip(["META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n"], ["A.class", "x"])],
    ["application/octet-stream", bytes("\0asm\x01\0\0\0", ZEROS)],
  ])("that hold another scanner's or libmagic's %s mean the same type", async (name, prefix) => {
    const type = await detector.detect(prefix);
    expect(type.mime).not.toBe(name);
    for (const list of [new Set([name]), new Set([type.mime])]) {
      expect(isAllowed(type, list)).toBe(true);
      expect(isBlocked(type, list)).toBe(true);
    }
    expect(isAllowed(type, new Set(["image/png"]))).toBe(false);
    expect(isBlocked(type, new Set(["image/png"]))).toBe(false);
  });

  it("block what the first bytes can't tell apart from a blocked type, and don't allow it", async () => {
    const largeJson = bytes(JSON.stringify(Array.from({ length: 2000 }, (_, id) => ({ id }))));
    for (const [name, prefix] of [
      ["application/msword", OLE],
      ["application/x-msi", OLE],
      ["application/json", largeJson],
    ] as const) {
      const type = await detector.detect(prefix);
      expect(isBlocked(type, new Set([name]))).toBe(true);
      expect(isAllowed(type, new Set([name]))).toBe(false);
    }
  });
});

describe("many at once", () => {
  it("get each their own answer", async () => {
    const samples = [PNG, bytes("%PDF-1.7\n1 0 obj\n"), zip(["a.txt", "hello"]), bytes("Hello, text.\n")];
    const expected = ["image/png", "application/pdf", "application/zip", "text/plain"];
    const types = await Promise.all(Array.from({ length: 40 }, (_, i) => detector.detect(samples[i % 4] ?? PNG)));
    expect(types.map((type) => type.mime)).toEqual(Array.from({ length: 40 }, (_, i) => expected[i % 4]));
  });

  it("leave the event loop free", async () => {
    const order: string[] = [];
    const detection = detector.detect(Buffer.alloc(4096, "\n")).then(() => order.push("detected"));
    await setImmediate().then(() => order.push("event loop"));
    await detection;
    expect(order).toEqual(["event loop", "detected"]);
  });
});
