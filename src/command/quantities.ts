/** Sizes and times as people read them. */

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

/** `0.4 ms`, `12 ms`, `3.2 s`, `125 s`. */
export function formatTime(milliseconds: number): string {
  if (milliseconds < 999.5) return `${milliseconds < 9.95 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
  const seconds = milliseconds / 1000;
  return `${seconds < 99.95 ? seconds.toFixed(1) : Math.round(seconds)} s`;
}
