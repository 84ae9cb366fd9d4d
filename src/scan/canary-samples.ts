/**
 * The canaries: bodies that a scanner must not call clean. Every one holds EICAR's test file, in a container of its own kind; those with a
 * container differ each time, so that no scanner answers from a cache of hashes.
 */
import { randomBytes, randomUUID } from "node:crypto";
import { constants, crc32, deflateRawSync, deflateSync } from "node:zlib";
import { type ZippedFile, zip } from "./zip.ts";

/**
 * `plain`: the file itself. `zip`: stored in a zip. `pdf`: an embedded file, uncompressed, of a PDF, a type that some scanners are set to
 * skip. `png`: in a zip behind a PNG picture, another such type. `trailing`: the last entry of a zip of 3 MB, of which a scanner
 * that looks at beginnings, or answers before it has all, sees too little. `expand`: in a zip, behind entries that together unpack to more
 * than scanners unpack. `encrypted`: in a zip that nobody can open.
 */
export const CANARY_KINDS = ["plain", "zip", "pdf", "png", "trailing", "expand", "encrypted"] as const;

export type CanaryKind = (typeof CANARY_KINDS)[number];

export interface Canary {
  readonly bytes: Buffer;
  readonly type: { readonly mime: string; readonly extension: string };
}

/** In two halves: whole, it would have this file deleted by virus scanners. */
export const EICAR: Buffer = Buffer.from(["X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR", "-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].join(""), "latin1");

const TYPES: Readonly<Record<CanaryKind, Canary["type"]>> = {
  plain: { mime: "text/plain", extension: "txt" },
  zip: { mime: "application/zip", extension: "zip" },
  pdf: { mime: "application/pdf", extension: "pdf" },
  png: { mime: "image/png", extension: "png" },
  trailing: { mime: "application/zip", extension: "zip" },
  expand: { mime: "application/zip", extension: "zip" },
  encrypted: { mime: "application/zip", extension: "zip" },
};

/** Builds the canary in a few milliseconds; the largest, `trailing`, is 3 MB. `random` gives that many random bytes. */
export function buildCanary(kind: CanaryKind, random: (size: number) => Buffer = randomBytes): Canary {
  return { bytes: BUILDERS[kind](random), type: TYPES[kind] };
}

/** A file that is to be called clean: another one each time, so that no answer comes from a cache of hashes. */
export function harmless(): Canary {
  return { bytes: Buffer.from(`A harmless text file: ${randomUUID()}\n`), type: TYPES.plain };
}

const BUILDERS: Readonly<Record<CanaryKind, (random: (size: number) => Buffer) => Buffer>> = {
  plain: () => Buffer.from(EICAR),
  zip: (random) => archive([storedEicar(random)], random),
  pdf: (random) => pdf(EICAR, random),
  png: (random) => Buffer.concat([PICTURE, archive([storedEicar(random)], random, PICTURE.length)]),
  trailing: (random) => archive([noise(random), storedEicar(random)], random),
  expand: (random) => archive([...zeros(random), storedEicar(random)], random),
  encrypted: (random) => archive([encryptedEicar(random)], random),
};

/** With a comment that differs each time. */
function archive(files: readonly ZippedFile[], random: (size: number) => Buffer, before = 0): Buffer {
  return zip(files, random(8).toString("hex"), before);
}

function randomName(random: (size: number) => Buffer, extension: string): string {
  return `${random(8).toString("hex")}.${extension}`;
}

/** EICAR as an entry that is not compressed. */
export function storedEicar(random: (size: number) => Buffer): ZippedFile {
  return stored(randomName(random, "com"), EICAR);
}

function stored(name: string, data: Buffer): ZippedFile {
  return { name, method: 0, encrypted: false, data, packed: data.length, crc: crc32(data), size: data.length };
}

/** Nothing that compresses: whatever a scanner skips of it, it skips of what was sent. */
function noise(random: (size: number) => Buffer): ZippedFile {
  return stored(randomName(random, "bin"), random(3_000_000));
}

/** One black pixel (PNG specification, third edition, section 5). */
const PICTURE = Buffer.concat([
  Buffer.from("\x89PNG\r\n\x1a\n", "latin1"),
  chunk("IHDR", Buffer.of(0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0)),
  chunk("IDAT", deflateSync(Buffer.of(0, 0))),
  chunk("IEND", Buffer.alloc(0)),
]);

function chunk(type: string, data: Buffer): Buffer {
  const framed = Buffer.concat([Buffer.alloc(4), Buffer.from(type, "latin1"), data, Buffer.alloc(4)]);
  framed.writeUInt32BE(data.length, 0);
  framed.writeUInt32BE(crc32(framed.subarray(4, -4)), framed.length - 4);
  return framed;
}

const MEBIBYTE = 1024 * 1024;
const ENTRIES = 40;
const ENTRY_SIZE = 16 * MEBIBYTE;
/** CRC-32 of an entry's zeros: it never changes. */
const CRC_OF_ZEROS = 0xa47ca14a;

/**
 * 640 MiB of zeros in 40 entries. Each is far below what scanners look at of one file, so that none is skipped for its own size: EICAR behind
 * them is missed, or the excess reported, for what they add up to.
 */
function zeros(random: (size: number) => Buffer): ZippedFile[] {
  // A flushed piece refers to nothing before itself, so it can stand there any number of times.
  const piece = deflateRawSync(Buffer.alloc(MEBIBYTE), { level: 9, finishFlush: constants.Z_SYNC_FLUSH });
  const pieces = Array.from({ length: ENTRY_SIZE / MEBIBYTE }, () => piece);
  // The last block, empty (RFC 1951 section 3.2.6).
  const data = Buffer.concat([...pieces, Buffer.of(0x03, 0x00)]);
  return Array.from({ length: ENTRIES }, (_, index) => ({
    name: `${index}-${randomName(random, "bin")}`,
    method: 8,
    encrypted: false,
    data,
    packed: data.length,
    crc: CRC_OF_ZEROS,
    size: ENTRY_SIZE,
  }));
}

/** EICAR under a password that is thrown away (APPNOTE.TXT section 6.1, traditional encryption). */
function encryptedEicar(random: (size: number) => Buffer): ZippedFile {
  const crc = crc32(EICAR);
  const encrypt = zipCrypto(Buffer.from(random(8).toString("hex"), "latin1"));
  // The last byte of the encryption header is the CRC's highest: by it, a wrong password is told.
  const header = Buffer.concat([random(11), Buffer.of(crc >>> 24)]);
  const data = encrypt(Buffer.concat([header, EICAR]));
  return { name: randomName(random, "com"), method: 0, encrypted: true, data, packed: data.length, crc, size: EICAR.length };
}

function zipCrypto(password: Buffer): (plain: Buffer) => Buffer {
  const keys = new Uint32Array([0x12345678, 0x23456789, 0x34567890]);
  const [low, middle, high] = [0, 1, 2] as const;
  const key = (index: 0 | 1 | 2): number => keys[index] ?? 0;
  const update = (byte: number): void => {
    keys[low] = crcStep(key(low), byte);
    keys[middle] = Math.imul(key(middle) + (key(low) & 0xff), 134_775_813) + 1;
    keys[high] = crcStep(key(high), key(middle) >>> 24);
  };
  for (const byte of password) update(byte);
  return (plain) => {
    const encrypted = Buffer.from(plain);
    for (const [index, byte] of plain.entries()) {
      const mask = (key(high) | 2) & 0xffff;
      encrypted[index] = byte ^ ((Math.imul(mask, mask ^ 1) >>> 8) & 0xff);
      update(byte);
    }
    return encrypted;
  };
}

/** One step of CRC-32 without the inversions before and after it, which `crc32` makes. */
function crcStep(crc: number, byte: number): number {
  return ~crc32(Buffer.of(byte), ~crc >>> 0) >>> 0;
}

/** A PDF of one empty page with one embedded file, nothing compressed (ISO 32000-1, sections 7.5 and 7.11.4). */
function pdf(file: Buffer, random: (size: number) => Buffer): Buffer {
  const name = randomName(random, "com");
  const stream = `<< /Type /EmbeddedFile /Length ${file.length} /Params << /Size ${file.length} >> >>\nstream\n`;
  const objects = [
    "<< /Type /Catalog /Pages 2 0 R /Names << /EmbeddedFiles << /Names [(a) 4 0 R] >> >> >>",
    "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
    "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 72 72] /Resources << >> >>",
    `<< /Type /Filespec /F (${name}) /UF (${name}) /EF << /F 5 0 R >> >>`,
    `${stream}${file.toString("latin1")}\nendstream`,
  ];
  const id = random(16).toString("hex");
  let text = "%PDF-1.7\n%\xe2\xe3\xcf\xd3\n";
  let table = "0000000000 65535 f \n";
  for (const [index, body] of objects.entries()) {
    table += `${String(text.length).padStart(10, "0")} 00000 n \n`;
    text += `${index + 1} 0 obj\n${body}\nendobj\n`;
  }
  const count = objects.length + 1;
  const start = text.length;
  text += `xref\n0 ${count}\n${table}trailer\n<< /Size ${count} /Root 1 0 R /ID [<${id}> <${id}>] >>\nstartxref\n${start}\n%%EOF\n`;
  return Buffer.from(text, "latin1");
}
