/** Sizes and durations as people write them. */

const NUMBER_AND_UNIT = /^(\d{1,15}(?:\.\d{1,9})?)\s*([a-z]*)$/i;

/** `K` alone counts in thousands, as `KB` does: only `KiB` counts in 1024s. */
const SIZE_UNITS = new Map<string, number>([
  ...unit(1, "", "b", "byte", "bytes"),
  ...unit(1000, "k", "kb", "kilobyte", "kilobytes"),
  ...unit(1000 ** 2, "m", "mb", "megabyte", "megabytes"),
  ...unit(1000 ** 3, "g", "gb", "gigabyte", "gigabytes"),
  ...unit(1000 ** 4, "t", "tb", "terabyte", "terabytes"),
  ...unit(1024, "kib", "kibibyte", "kibibytes"),
  ...unit(1024 ** 2, "mib", "mebibyte", "mebibytes"),
  ...unit(1024 ** 3, "gib", "gibibyte", "gibibytes"),
  ...unit(1024 ** 4, "tib", "tebibyte", "tebibytes"),
]);

const SECOND = 1000;
const DAY = 24 * 60 * 60 * SECOND;

/** A year is 52 weeks, as the Python scanner counts it; a bare number is seconds. */
const DURATION_UNITS = new Map<string, number>([
  ...unit(1, "ms", "millisecond", "milliseconds"),
  ...unit(SECOND, "", "s", "sec", "secs", "second", "seconds"),
  ...unit(60 * SECOND, "m", "min", "mins", "minute", "minutes"),
  ...unit(3600 * SECOND, "h", "hour", "hours"),
  ...unit(DAY, "d", "day", "days"),
  ...unit(7 * DAY, "w", "week", "weeks"),
  ...unit(52 * 7 * DAY, "y", "year", "years"),
]);

/** Bytes: `100MB`, `100 MiB`, `1.5g`, or a bare number. Undefined when it is no size. */
export function parseSize(value: string | number): number | undefined {
  return parse(value, SIZE_UNITS);
}

/** Milliseconds: `30s`, `1 week`, `250ms`, or a bare number of seconds. Undefined when it is no duration. */
export function parseDuration(value: string | number): number | undefined {
  return parse(value, DURATION_UNITS);
}

function parse(value: string | number, units: ReadonlyMap<string, number>): number | undefined {
  const [, number, name] = NUMBER_AND_UNIT.exec(String(value).trim()) ?? [];
  const factor = units.get(name?.toLowerCase() ?? "");
  if (number === undefined || factor === undefined) return undefined;
  const total = Math.round(Number(number) * factor);
  return Number.isSafeInteger(total) ? total : undefined;
}

function unit(factor: number, ...names: readonly string[]): [string, number][] {
  return names.map((name) => [name, factor]);
}
