/**
 * From an ICAP answer to a verdict. Clean is proved, never assumed: by a 204 that came after the last chunk was sent, or by a 200 that
 * came then and echoes the status and the very bytes sent; and by no header that says otherwise. What any vendor is known to say is a
 * row of `HEADER_ROWS`; every row is read in every answer, in the ICAP head and in the encapsulated one, and the gravest one counts.
 */

/** A head's fields; names have any case. `get` gives the first value; a folded value keeps its lines, separated by LF. */
export interface HeaderReader {
  get(name: string): string | undefined;
  all(name: string): readonly string[];
}

export interface AnswerFacts {
  readonly icapStatus: number;
  readonly icapHeaders: HeaderReader;
  /** The encapsulated response head, if there is one. */
  readonly http: { readonly status: number; readonly headers: HeaderReader } | undefined;
  /** The returned body, read to its end, beside the sent one: `identical` is the same length and the same SHA-256. */
  readonly body: "none" | "identical" | "different";
  /** Whether the last chunk had been sent before the answer's head came. */
  readonly sent: "all" | "part";
  /** The status of the HTTP response that was sent to be scanned. */
  readonly sentHttpStatus: number;
}

export type Verdict =
  | { readonly outcome: "clean"; readonly how: "204" | "echo" }
  | { readonly outcome: "infected"; readonly threat: string }
  /** Another body or head came back, without a word on why: a block page, a sanitised file, an echo cut short. */
  | { readonly outcome: "modified"; readonly why: string }
  /** The engine says that it could not look inside: encrypted, too deep, too large for it. */
  | { readonly outcome: "unscannable"; readonly why: string }
  | { readonly outcome: "error"; readonly why: string };

/**
 * What one field says. `named`: infected, with the threat's name; `blocked`: infected, no name. In order of weight: a named threat
 * counts whatever else is said; "blocked" comes with every verdict but clean, so it yields to the reason that an unscannable file has.
 */
type Grade = "named" | "unscannable" | "blocked" | "error" | "modified";

interface Finding {
  readonly grade: Grade;
  readonly text: string;
}

interface HeaderRow {
  readonly header: string;
  /** What a value says; empty when it says that nothing was found. Whatever is not understood is a finding. */
  readonly read: (value: string, header: string) => readonly Finding[];
}

const GRADES: readonly Grade[] = ["named", "unscannable", "blocked", "error", "modified"];

/** In the order in which threat names are preferred. */
const HEADER_ROWS: readonly HeaderRow[] = [
  { header: "X-Infection-Found", read: infectionFound },
  { header: "X-FSecure-Infection-Name", read: threatName },
  { header: "X-Virus-Name", read: threatName },
  { header: "X-Violations-Found", read: violationsFound },
  // Kaspersky sends it with clean files as well. May be localised, so it comes after the others.
  { header: "X-Virus-ID", read: unless(["no threats"], threatName) },
  { header: "X-FSecure-Scan-Result", read: unless(["clean"], blocked) },
  { header: "X-FSecure-Infected-Filename", read: blocked },
  { header: "X-Block-Reason", read: blocked },
  { header: "X-Block-Result", read: blocked },
  { header: "X-WWBlockResult", read: blocked },
  { header: "X-Response-Info", read: unless(["allowed"], blocked) },
  { header: "X-Blocked-Reason", read: blocked },
  { header: "X-Blocked", read: blocked },
  { header: "X-Blocked-By", read: blocked },
  // Symantec Content Analysis sends it with a 204 as well, where it is set to serve what it could not scan.
  { header: "X-Error-Code", read: errorCode },
  { header: "X-MFE-PREVENT", read: (value, header) => [{ grade: "error", text: `${header}: ${value}` }] },
];

/** ICAP statuses that are a finding by themselves. 200 and 204 have to be looked at further; any other is an error. */
const ICAP_STATUS: Readonly<Record<number, Grade>> = {
  // Symantec Protection Engine.
  201: "modified",
  // Never asked for (Allow: 206 is not sent).
  206: "modified",
  // Trend. c-icap's access control says it too, but says it to OPTIONS first, so such a service is never up.
  403: "blocked",
};

/** Encapsulated statuses that speak of the request, not of the file (Vision One: no file name, no authorisation). */
const HTTP_REQUEST_FAULTS: readonly number[] = [400, 401];

/** ClamAV's names for what it could not look into. */
const CLAMAV_UNSCANNABLE = /^Heuristics\.(?:Limits\.Exceeded|Encrypted)(?:\.|$)/i;

const UNSCANNABLE_CODE = /^(?:password_protected|decode_error|unsupported_compression|max_[a-z_]+)$/i;
const BLOCKED_CODE = /^[a-z_]+_blocked$/i;

/** A longer value counts as not understood, so that no pattern here has much to chew on. */
const MAX_VALUE = 4096;
const MAX_TEXT = 200;

/** Controls, formatting (bidirectional overrides among it), line separators, and what has no meaning yet. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/u;

/**
 * The verdict that an answer amounts to (RFC 3507 sections 4.3.3, 4.4.3 and 4.9; the X- headers are vendors').
 * Pure; never throws. Texts are at most 200 characters, with control characters escaped.
 */
export function judge(facts: AnswerFacts): Verdict {
  const found = [...headerFindings(facts), ...statusFindings(facts)];
  // A violation or a virus ID that only repeats the name of what could not be looked into is no infection of its own.
  const containers = new Set(found.filter((one) => one.grade === "unscannable").map((one) => one.text));
  const telling = found.filter((one) => one.grade !== "named" || !containers.has(one.text));
  for (const grade of GRADES) {
    const first = telling.find((one) => one.grade === grade);
    if (first !== undefined) return verdictOf(first);
  }
  return proof(facts);
}

/** The only place where clean is born. */
function proof(facts: AnswerFacts): Verdict {
  const { icapStatus, http, body, sent } = facts;
  // A server that answers early has not seen all it speaks of. An early 200 may even echo every byte: c-icap does so with what exceeds
  // MaxObjectSize, unscanned.
  if (sent !== "all") return { outcome: "error", why: `ICAP ${statusText(icapStatus)} before the last chunk was sent` };
  if (icapStatus === 204) {
    if (http === undefined && body === "none") return { outcome: "clean", how: "204" };
    return { outcome: "error", why: "ICAP 204 with an encapsulated message" };
  }
  if (icapStatus !== 200) return { outcome: "error", why: `ICAP ${statusText(icapStatus)}` };
  if (http === undefined) return { outcome: "error", why: "ICAP 200 without an encapsulated response" };
  if (http.status !== facts.sentHttpStatus) return { outcome: "modified", why: `HTTP ${statusText(http.status)} came back` };
  if (body === "identical") return { outcome: "clean", how: "echo" };
  return { outcome: "modified", why: body === "none" ? "no body came back" : "another body came back" };
}

function verdictOf({ grade, text }: Finding): Verdict {
  if (grade === "named" || grade === "blocked") return { outcome: "infected", threat: printable(text) };
  return { outcome: grade, why: printable(text) };
}

function headerFindings({ icapHeaders, http }: AnswerFacts): Finding[] {
  const heads = http === undefined ? [icapHeaders] : [icapHeaders, http.headers];
  return HEADER_ROWS.flatMap((row) => heads.flatMap((head) => head.all(row.header).flatMap((value) => readRow(row, value.trim()))));
}

function readRow({ header, read }: HeaderRow, value: string): readonly Finding[] {
  return value.length > MAX_VALUE ? [{ grade: "named", text: `${header}: ${value}` }] : read(value, header);
}

function statusFindings({ icapStatus, http, sentHttpStatus }: AnswerFacts): Finding[] {
  const found: Finding[] = [];
  if (icapStatus !== 200 && icapStatus !== 204) {
    found.push({ grade: ICAP_STATUS[icapStatus] ?? "error", text: `ICAP ${statusText(icapStatus)}` });
  }
  if (http !== undefined && http.status !== sentHttpStatus) {
    const grade = httpGrade(http.status);
    if (grade !== undefined) found.push({ grade, text: `HTTP ${statusText(http.status)}` });
  }
  return found;
}

/** A redirection or a refusal in place of what was sent is a block page; ICAPeg sends one with a status of the operator's choice and no header. */
function httpGrade(status: number): Grade | undefined {
  if (status >= 500 || HTTP_REQUEST_FAULTS.includes(status)) return "error";
  return status >= 300 ? "blocked" : undefined;
}

/** `Type=0; Resolution=2; Threat=Eicar;` (draft-stecher-icap-subid). Container problems are unscannable; all else is infected. */
function infectionFound(value: string): readonly Finding[] {
  const types = parameter(value, "Type");
  const resolutions = parameter(value, "Resolution");
  // The threat is the last parameter and may hold anything.
  const threat = /(?:^|;)\s*Threat\s*=\s*([^]*?)[\s;]*$/i.exec(value)?.[1] ?? value;
  const container = types.length === 1 && types[0] === "2" && resolutions.length <= 1 && resolutions[0] !== "1";
  if (container) return [{ grade: "unscannable", text: threat }];
  return resolutions.includes("1") ? [{ grade: "named", text: threat }] : threatName(threat);
}

/** Every value that a parameter has in a list like `Type=0; Resolution=2`; more than one is a lie somewhere. */
function parameter(value: string, name: string): string[] {
  return value.split(";").flatMap((part) => {
    const [key = "", ...rest] = part.split("=");
    return key.trim().toLowerCase() === name.toLowerCase() ? [rest.join("=").trim()] : [];
  });
}

/** `N`, then four lines for each: file name, threat, problem ID, resolution ID. Fewer than N may follow; those have no name to excuse them. */
function violationsFound(value: string, header: string): readonly Finding[] {
  if (/^0+$/.test(value)) return [];
  const [count = "", ...lines] = value.split("\n").map((line) => line.trim());
  const threats = lines.filter((_, index) => index % 4 === 1);
  const found = threats.flatMap((threat) => threatName(threat));
  if (count !== String(threats.length)) found.push({ grade: "named", text: `${header}: ${value}` });
  return found;
}

/** A field that holds a threat's name. There is none for clean files, so that a name nobody can read is a threat as well. */
function threatName(value: string): Finding[] {
  return [{ grade: CLAMAV_UNSCANNABLE.test(value) ? "unscannable" : "named", text: value }];
}

function blocked(value: string, header: string): readonly Finding[] {
  return [{ grade: "blocked", text: `${header}: ${value}` }];
}

function errorCode(value: string, header: string): readonly Finding[] {
  const grade = UNSCANNABLE_CODE.test(value) ? "unscannable" : BLOCKED_CODE.test(value) ? "blocked" : "error";
  return [{ grade, text: `${header}: ${value}` }];
}

function unless(harmless: readonly string[], read: HeaderRow["read"]): HeaderRow["read"] {
  return (value, header) => (harmless.includes(value.toLowerCase()) ? [] : read(value, header));
}

function statusText(status: number): string {
  return Number.isInteger(status) ? String(status) : "without a status";
}

/** At most 200 characters that a log or a terminal takes as text. Bytes of UTF-8 that were read as Latin-1 are put right. */
function printable(raw: string): string {
  let out = "";
  for (const char of asUtf8(raw).toWellFormed().trim()) {
    const piece = UNPRINTABLE.test(char) ? `\\u{${(char.codePointAt(0) ?? 0).toString(16)}}` : char;
    if (out.length + piece.length >= MAX_TEXT) return `${out}…`;
    out += piece;
  }
  return out === "" ? "unnamed" : out;
}

/** A header block may be UTF-8 or Latin-1, and its parser has to choose one. */
function asUtf8(raw: string): string {
  const text = raw.slice(0, 4 * MAX_TEXT);
  const codes = Array.from(text, (char) => char.codePointAt(0) ?? 0);
  if (codes.some((code) => code > 0xff)) return text;
  try {
    // With `stream`, a character that the cut above has split is left out.
    return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(codes), { stream: text.length < raw.length });
  } catch {
    return text;
  }
}
