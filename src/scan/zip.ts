/** Zips, as far as canaries need them (APPNOTE.TXT 6.3.10, section 4.3): no directories, no zip64. */

/** What is said of an entry. */
export interface ZipEntry {
  /** Latin-1. */
  readonly name: string;
  /** 0: stored, 8: deflated. */
  readonly method: 0 | 8;
  readonly encrypted: boolean;
  /** Bytes in the archive, compressed and encrypted. */
  readonly packed: number;
  /** Of what is to come out of it. */
  readonly crc: number;
  readonly size: number;
}

/** An entry with its bytes as they stand in the archive. */
export interface ZippedFile extends ZipEntry {
  readonly data: Buffer;
}

/** Archives may not be larger than this without zip64. */
export const MAX_ZIP_SIZE = 0xffff_ffff;

/** A whole archive; `before` is how many bytes of another file it is put behind. */
export function zip(files: readonly ZippedFile[], comment: string, before = 0): Buffer {
  const parts: Buffer[] = [];
  const placed: { readonly entry: ZipEntry; readonly offset: number }[] = [];
  let offset = before;
  for (const file of files) {
    const header = localHeader(file);
    placed.push({ entry: file, offset });
    parts.push(header, file.data);
    offset += header.length + file.data.length;
  }
  return Buffer.concat([...parts, directory(placed, offset, comment)]);
}

/** Stands before the entry's bytes. */
export function localHeader(entry: ZipEntry): Buffer {
  return Buffer.concat([Buffer.from("PK\x03\x04", "latin1"), commonFields(entry), Buffer.from(entry.name, "latin1")]);
}

/** Stands at the end, from `start` on: where the local headers are, and the comment. */
export function directory(
  entries: readonly { readonly entry: ZipEntry; readonly offset: number }[],
  start: number,
  comment: string,
): Buffer {
  const headers = entries.map(({ entry, offset }) => {
    // Made by, the fields again, then comment, disk and attributes (none), and where the local header is.
    const rest = Buffer.alloc(14);
    rest.writeUInt32LE(offset, 10);
    return Buffer.concat([Buffer.from("PK\x01\x02\x14\0", "latin1"), commonFields(entry), rest, Buffer.from(entry.name, "latin1")]);
  });
  const text = Buffer.from(comment, "latin1");
  const end = Buffer.alloc(22);
  end.write("PK\x05\x06", "latin1");
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(
    headers.reduce((sum, { length }) => sum + length, 0),
    12,
  );
  end.writeUInt32LE(start, 16);
  end.writeUInt16LE(text.length, 20);
  return Buffer.concat([...headers, end, text]);
}

/** What the local and the central header have in common: version needed to extra field length. */
function commonFields({ name, method, encrypted, packed, crc, size }: ZipEntry): Buffer {
  const fields = Buffer.alloc(26);
  fields.writeUInt16LE(20, 0);
  fields.writeUInt16LE(encrypted ? 1 : 0, 2);
  fields.writeUInt16LE(method, 4);
  // 1 January 1980, the first day that can be told.
  fields.writeUInt16LE(0x0021, 8);
  fields.writeUInt32LE(crc, 10);
  fields.writeUInt32LE(packed, 14);
  fields.writeUInt32LE(size, 18);
  fields.writeUInt16LE(name.length, 22);
  return fields;
}
