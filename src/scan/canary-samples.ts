/**
 * The canaries: bodies that a scanner must not call clean. Every one holds EICAR's test file, in a container of its own kind; those with a
 * container differ each time, so that no scanner answers from a cache of hashes.
 */
import { randomBytes } from "node:crypto";
import { constants, crc32, deflateRawSync } from "node:zlib";

/**
 * `plain`: the file itself. `zip`: stored in a zip. `pdf`: an embedded file, uncompressed, of a PDF, a type that some scanners are set to
 * skip. `expand`: in a zip, behind entries that together unpack to more than scanners unpack. `encrypted`: in a zip that nobody can open.
 */
export type CanaryKind = "plain" | "zip" | "pdf" | "expand" | "encrypted";

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
  expand: { mime: "application/zip", extension: "zip" },
  encrypted: { mime: "application/zip", extension: "zip" },
};

/** Builds the canary in a few milliseconds; the largest, `expand`, is 640 KiB. `random` gives that many random bytes. */
export function buildCanary(kind: CanaryKind, random: (size: number) => Buffer = randomBytes): Canary {
  return { bytes: BUILDERS[kind](random), type: TYPES[kind] };
}

const BUILDERS: Readonly<Record<CanaryKind, (random: (size: number) => Buffer) => Buffer>> = {
  plain: () => Buffer.from(EICAR),
  zip: (random) => zip([storedEicar(random)], random),
  pdf: (random) => pdf(EICAR, random),
  expand: (random) => zip([...zeros(random), storedEicar(random)], random),
  encrypted: (random) => zip([encryptedEicar(random)], random),
};

/** An entry as it stands in a zip: already compressed and encrypted. */
interface ZipEntry {
  readonly name: string;
  /** 0: stored, 8: deflated. */
  readonly method: 0 | 8;
  readonly encrypted: boolean;
  readonly data: Buffer;
  /** Of what is to come out of it. */
  readonly crc: number;
  readonly size: number;
}

/** A zip (APPNOTE.TXT 6.3.10, section 4.3) with a random comment. */
function zip(entries: readonly ZipEntry[], random: (size: number) => Buffer): Buffer {
  const locals: Buffer[] = [];
  const centrals: Buffer[] = [];
  let offset = 0;
  for (const entry of entries) {
    const name = Buffer.from(entry.name, "latin1");
    const header = entryHeader(entry, name.length);
    const local = Buffer.concat([Buffer.from("PK\x03\x04", "latin1"), header, name, entry.data]);
    // Made by, the header again, then comment, disk and attributes (none), and where the local header is.
    const central = Buffer.concat([Buffer.from("PK\x01\x02\x14\0", "latin1"), header, Buffer.alloc(14), name]);
    central.writeUInt32LE(offset, 42);
    offset += local.length;
    locals.push(local);
    centrals.push(central);
  }
  const comment = Buffer.from(random(8).toString("hex"), "latin1");
  const end = Buffer.alloc(22);
  end.write("PK\x05\x06", "latin1");
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(Buffer.concat(centrals).length, 12);
  end.writeUInt32LE(offset, 16);
  end.writeUInt16LE(comment.length, 20);
  return Buffer.concat([...locals, ...centrals, end, comment]);
}

/** What the local and the central header have in common: version needed to extra field length. */
function entryHeader({ method, encrypted, data, crc, size }: ZipEntry, nameLength: number): Buffer {
  const header = Buffer.alloc(26);
  header.writeUInt16LE(20, 0);
  header.writeUInt16LE(encrypted ? 1 : 0, 2);
  header.writeUInt16LE(method, 4);
  // 1 January 1980, the first day that can be told.
  header.writeUInt16LE(0x0021, 8);
  header.writeUInt32LE(crc, 10);
  header.writeUInt32LE(data.length, 14);
  header.writeUInt32LE(size, 18);
  header.writeUInt16LE(nameLength, 22);
  return header;
}

function randomName(random: (size: number) => Buffer, extension: string): string {
  return `${random(8).toString("hex")}.${extension}`;
}

function storedEicar(random: (size: number) => Buffer): ZipEntry {
  return { name: randomName(random, "com"), method: 0, encrypted: false, data: EICAR, crc: crc32(EICAR), size: EICAR.length };
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
function zeros(random: (size: number) => Buffer): ZipEntry[] {
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
    crc: CRC_OF_ZEROS,
    size: ENTRY_SIZE,
  }));
}

/** EICAR under a password that is thrown away (APPNOTE.TXT section 6.1, traditional encryption). */
function encryptedEicar(random: (size: number) => Buffer): ZipEntry {
  const crc = crc32(EICAR);
  const encrypt = zipCrypto(Buffer.from(random(8).toString("hex"), "latin1"));
  // The last byte of the encryption header is the CRC's highest: by it, a wrong password is told.
  const header = Buffer.concat([random(11), Buffer.of(crc >>> 24)]);
  return {
    name: randomName(random, "com"),
    method: 0,
    encrypted: true,
    data: encrypt(Buffer.concat([header, EICAR])),
    crc,
    size: EICAR.length,
  };
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
