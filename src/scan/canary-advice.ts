/** What it means that a service misses a canary, and what an operator sets so that it does not; for logs, readiness and the command line. */
import type { CanaryKind } from "./canary-samples.ts";

/** Why EICAR at the end of a large file may be missed, or the answer may come before the last byte was sent. */
export const HOW_TO_WAIT =
  "it may answer before it has all of a file (c-icap: set virus_scan.SendPercentData 0, virus_scan.StartSendPercentDataAfter 1024M, and virus_scan.MaxObjectSize above scan.max_file_size)";

/** Each continues a sentence that names the service. */
export const CANARY_ADVICE: Readonly<Record<CanaryKind, string>> = {
  plain:
    "it let the plain EICAR test file pass, so it scans nothing: the antivirus engine behind it is probably not running or was started after it (restart the ICAP server once the engine answers; a DLP that knows no viruses? set canary: [])",
  zip: "it let EICAR in a zip pass: switch the scanning of archives on (c-icap: ARCHIVE among virus_scan.ScanFileTypes, or force=on in the service URL)",
  pdf: "it let EICAR embedded in a PDF pass: it does not scan all types (c-icap: add force=on to the service URL, or all types to virus_scan.ScanFileTypes)",
  png: "it let EICAR in a zip behind a PNG picture pass: it does not scan all types, or looks at what a file begins with alone (c-icap: add force=on to the service URL, or all types to virus_scan.ScanFileTypes)",
  trailing: `it let EICAR at the end of a zip of 3 MB pass: it looks at the beginnings of files alone, or ${HOW_TO_WAIT}`,
  expand:
    "it says clean of an archive that unpacks to more than it looks at (ClamAV: set AlertExceedsMax yes); what lies behind its limit is not scanned",
  encrypted: "it says clean of an encrypted archive (ClamAV: set AlertEncrypted yes); what is inside is not scanned",
};

/** Ends what is said of a service that is not used: it names one problem, and the next shows only when that is mended. */
export const SHOWS_ALL = "`icap canary -c FILE --service NAME` shows all at once";

/** What a service said of a canary. */
export type CanaryOutcome = "clean" | "infected" | "modified" | "unscannable";

/** Missing one of these is told, not punished, unless a service is set to require it. */
export const ADVISORY: readonly CanaryKind[] = ["expand", "encrypted"];

/** What a scanner can't look into is as good as caught where just that is the question; EICAR in the open must be named. */
export function isCaught(kind: CanaryKind, outcome: CanaryOutcome): boolean {
  return outcome === "infected" || (outcome === "unscannable" && ADVISORY.includes(kind));
}

/** What is wrong with this answer, and what to set; undefined for a canary that is caught, and for a harmless file that passes. */
export function complaintAbout(kind: CanaryKind | "harmless", outcome: CanaryOutcome): string | undefined {
  if (kind === "harmless") {
    return outcome === "clean" ? undefined : `it answered "${outcome}" to a harmless text file, so its verdicts mean nothing`;
  }
  if (isCaught(kind, outcome)) return undefined;
  if (outcome === "clean") return CANARY_ADVICE[kind];
  const answer = `it answered "${outcome}" to the ${kind} EICAR test file instead of reporting it as infected`;
  // Part of the file comes back before the rest has been looked at.
  return outcome === "modified" && kind === "trailing" ? `${answer}: ${HOW_TO_WAIT}` : answer;
}
