/** A tar of files (POSIX.1-1988 ustar), given as name and content. */
export function tar(...files: readonly (readonly [name: string, bytes: Uint8Array])[]): Buffer {
  return Buffer.concat([...files.flatMap(([name, bytes]) => member(name, bytes)), Buffer.alloc(1024)]);
}

function member(name: string, bytes: Uint8Array): Uint8Array[] {
  const header = Buffer.alloc(512);
  header.write(name);
  header.write("0000644\0".padEnd(24, "0000000\0"), 100);
  header.write(`${bytes.length.toString(8).padStart(11, "0")}\0${"0".repeat(11)}\0        0`, 124);
  header.write("ustar\u000000", 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return [header, bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)];
}
