/** Sizes as people read them, the same in logs, readiness and on the command line. */

const KIB = 1024;
const UNITS = ["KiB", "MiB", "GiB", "TiB"] as const;

/** `68 B`, `1.5 MiB`, `200 MiB`: three digits at least, never rounded up to what it is not. */
export function formatSize(bytes: number): string {
  if (bytes < KIB) return `${bytes} B`;
  const power = Math.min(UNITS.length, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / KIB ** power;
  const digits = value < 10 ? 100 : value < 100 ? 10 : 1;
  return `${Math.floor(value * digits) / digits} ${UNITS[power - 1]}`;
}
