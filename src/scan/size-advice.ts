/** What it means that a service is not proven to scan all sizes, and what an operator sets so that it is. */

const KIBIBYTE = 1024;
const MEBIBYTE = 1024 * KIBIBYTE;

/**
 * Continues a sentence that names the service. Sizes in bytes; `unsure` tells why `size` is not the service's own limit.
 */
export function sizeAdvice(size: number, wanted: number, unsure?: string): string {
  if (unsure !== undefined) {
    return `how large a file it scans could not be found out (${unsure}); until it is, media above ${amount(size)} is answered 503`;
  }
  const whole = Math.ceil(wanted / MEBIBYTE);
  const raise =
    `c-icap's virus_scan.MaxObjectSize and clamd's StreamMaxLength and MaxFileSize to more than ${whole}M, and clamd's MaxScanSize to more ` +
    `than ${2 * whole}M (it counts an archive together with what it unpacks from it)`;
  const found =
    size === 0
      ? "it misses EICAR as the last entry of a padded zip however small that is, so all media is answered 503"
      : `it is proven to scan files up to ${amount(size)} only, so larger media is answered 503`;
  return `${found}: for all ${amount(wanted)} of scan.max_file_size set ${raise}, or lower scan.max_file_size`;
}

function amount(bytes: number): string {
  const [unit, name] = bytes < MEBIBYTE ? [KIBIBYTE, "KiB"] : [MEBIBYTE, "MiB"];
  return `${Math.floor((bytes / unit) * 10) / 10} ${name}`;
}
