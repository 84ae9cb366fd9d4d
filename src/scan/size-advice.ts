/** What it means that a service is not proven to scan all sizes, and what an operator sets so that it is. */
import { HOW_TO_WAIT } from "./canary-advice.ts";
import { formatSize } from "./format-size.ts";

const MEBIBYTE = 1024 * 1024;

/**
 * Continues a sentence that names the service. Sizes in bytes; `unsure` tells why `size` is not the service's own limit.
 */
export function sizeAdvice(size: number, wanted: number, unsure?: string): string {
  if (unsure !== undefined) {
    return `how large a file it scans could not be found out (${unsure}); until it is, media above ${formatSize(size)} is answered 503`;
  }
  const whole = Math.ceil(wanted / MEBIBYTE);
  const found =
    size === 0
      ? "it misses EICAR as the last entry of a padded zip however small that is, so all media is answered 503"
      : `it is proven to scan files up to ${formatSize(size)} only, so larger media is answered 503`;
  return (
    `${found}: for all ${formatSize(wanted)} of scan.max_file_size set clamd's MaxFileSize to more than ${whole}M and its MaxScanSize to more ` +
    `than ${2 * whole}M (it counts an archive together with what it unpacks from it), c-icap's virus_scan.MaxObjectSize to more than ${whole}M ` +
    `(or sizelimit=off in the service URL), and StreamMaxLength likewise where files are streamed to clamd (c-icap does not), or lower ` +
    `scan.max_file_size; or ${HOW_TO_WAIT}`
  );
}
