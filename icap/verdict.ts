/**
 * From an ICAP answer to a verdict. Clean is proved, never assumed: by a 204 that came after the last chunk was sent, or by a 200 that
 * came then and brings back the very message sent; and by no header that says otherwise. What vendors are known to say is in
 * `profiles.ts`; every row is read in every answer, in the ICAP head and in the encapsulated ones, and the gravest one counts.
 */
import { profileOf, readingOf } from "./profiles.ts";
import { type Finding, type Grade, type HeaderReader, type Reading, readHeaders, readStatus } from "./reading.ts";
import { printable } from "./verdict-text.ts";

export type { HeaderReader, Reading } from "./reading.ts";

export interface AnswerFacts {
  /** Of the request. */
  readonly method: "RESPMOD" | "REQMOD";
  readonly icapStatus: number;
  readonly icapHeaders: HeaderReader;
  /** The encapsulated response head, if there is one. */
  readonly http: { readonly status: number; readonly headers: HeaderReader } | undefined;
  /** REQMOD: whether an encapsulated request came back, and with the very request line that was sent. RESPMOD: `none`. */
  readonly request: "none" | "same" | "other";
  /** Of that request; they are read as the other heads are. */
  readonly requestHeaders?: HeaderReader | undefined;
  /**
   * The returned body (RESPMOD: res-body, REQMOD: req-body), read to its end, beside the sent one: `identical` is the same length and the
   * same SHA-256.
   */
  readonly body: "none" | "identical" | "different";
  /**
   * What had been sent before the answer's head came. `all`: the last chunk; `preview`: a whole preview that was not the whole body, of which
   * the server did not ask for the rest; `part`: less than that.
   */
  readonly sent: "all" | "preview" | "part";
  /** A 204 after a preview acquits what the server has not seen: whether that is to be believed. */
  readonly trustsPreview: boolean;
  /** The status of the HTTP response that was sent to be scanned (RESPMOD). */
  readonly sentHttpStatus: number;
}

/** What the heads alone can say. */
export type HeadFacts = Omit<AnswerFacts, "body" | "sent" | "trustsPreview">;

/** What the heads say: against the file, or of why there is no verdict on it; no verdict where they say nothing, which is no proof of anything yet. */
export interface HeadsRead {
  readonly verdict: Verdict | undefined;
  /** The server says of the body that it sends that it is harmless. */
  readonly sanitised: boolean;
}

export type Verdict =
  /** `ignored`: not sent, because the service names its extension as one to be ignored, and is trusted in that; no answer is ever that. */
  | { readonly outcome: "clean"; readonly how: "204" | "echo" | "ignored" }
  | { readonly outcome: "infected"; readonly threat: string }
  /**
   * Another message came back, without a word on why: a block page, a sanitised file, an echo cut short. `sanitised` where the server says
   * itself that its body (RESPMOD) is fit to be handed on in place of the one sent.
   */
  | { readonly outcome: "modified"; readonly why: string; readonly sanitised?: true }
  /** The engine says that it could not look inside: encrypted, too deep, too large for it. */
  | { readonly outcome: "unscannable"; readonly why: string }
  | { readonly outcome: "error"; readonly why: string };

/** The gravest first. */
const GRADES: readonly Grade[] = ["named", "unscannable", "blocked", "error", "modified"];

const NOTHING_SAID: HeadsRead = { verdict: undefined, sanitised: false };

const AUTO = readingOf(profileOf("auto"));

/**
 * The verdict that an answer amounts to (RFC 3507 sections 4.3.3, 4.4.3, 4.8 and 4.9; the X- headers are vendors').
 * Pure; never throws. Texts are at most 200 characters, with control characters escaped.
 */
export function judge(facts: AnswerFacts, reading: Reading = AUTO): Verdict {
  return conclude(facts, reading, readHeads(facts, reading));
}

/** As `judge`, when what the heads of this very answer say is known already. */
export function conclude(facts: AnswerFacts, reading: Reading, heads: HeadsRead): Verdict {
  return heads.verdict ?? proof(facts, reading, heads.sanitised);
}

/** What stands whatever the body is, and whenever the answer came. As `judge`, pure; never throws. */
export function readHeads(facts: HeadFacts, reading: Reading): HeadsRead {
  const found = [...readHeaders(reading.headers, headsOf(facts)), ...statusFindings(facts, reading)];
  if (found.length === 0) return NOTHING_SAID;
  // A violation or a virus ID that only repeats the name of what could not be looked into is no infection of its own.
  const containers = new Set(found.filter((one) => one.grade === "unscannable").map((one) => one.text));
  const telling = found.filter((one) => one.grade !== "named" || !containers.has(one.text));
  for (const grade of GRADES) {
    const first = telling.find((one) => one.grade === grade);
    if (first !== undefined) return { verdict: verdictOf(first), sanitised: false };
  }
  return { verdict: undefined, sanitised: found.some((one) => one.grade === "sanitised") };
}

/** The only place where clean is born. */
function proof(facts: AnswerFacts, reading: Reading, sanitised: boolean): Verdict {
  const { icapStatus, http, request, body, sent } = facts;
  // A server that answers early has not seen all it speaks of. An early 200 may even echo every byte: c-icap does so with what exceeds
  // MaxObjectSize, unscanned.
  const acquitted = sent === "preview" && icapStatus === 204 && facts.trustsPreview && !reading.blindPreview;
  if (sent !== "all" && !acquitted) return error(`ICAP ${statusText(icapStatus)} before the last chunk was sent`);
  if (icapStatus === 204) {
    if (http === undefined && request === "none" && body === "none") return { outcome: "clean", how: "204" };
    return error("ICAP 204 with an encapsulated message");
  }
  if (icapStatus !== 200) return error(`ICAP ${statusText(icapStatus)}`);
  return facts.method === "REQMOD" ? requestProof(facts) : responseProof(facts, reading, sanitised);
}

/** Of a 200 to RESPMOD, when everything was sent. */
function responseProof({ http, body, sentHttpStatus }: AnswerFacts, reading: Reading, sanitised: boolean): Verdict {
  if (http === undefined) return error("ICAP 200 without an encapsulated response");
  if (http.status !== sentHttpStatus) return modified(`HTTP ${statusText(http.status)} came back`);
  if (body === "identical") return { outcome: "clean", how: "echo" };
  if (body === "none") return modified("no body came back");
  if (reading.replaced === "blocked") return { outcome: "infected", threat: "another body came back" };
  return sanitised ? { ...modified("a sanitised body came back"), sanitised } : modified("another body came back");
}

/** Of a 200 to REQMOD that brought no response, when everything was sent. */
function requestProof({ request, body }: AnswerFacts): Verdict {
  if (request === "none") return error("ICAP 200 without an encapsulated request");
  // The request may have been turned towards a block page.
  if (request === "other") return modified("another request came back");
  if (body === "identical") return { outcome: "clean", how: "echo" };
  return modified(body === "none" ? "no body came back" : "another body came back");
}

/** What is said of a file whose upload was answered in its server's stead, where no header says more. */
export function satisfaction(status: number): string {
  return `HTTP ${statusText(status)} in answer to the request`;
}

function headsOf({ icapHeaders, http, requestHeaders }: HeadFacts): readonly HeaderReader[] {
  return [icapHeaders, http?.headers, requestHeaders].filter((head) => head !== undefined);
}

function statusFindings(facts: HeadFacts, reading: Reading): readonly Finding[] {
  const { icapStatus, http } = facts;
  const icap = icapStatus === 200 || icapStatus === 204 ? undefined : readStatus(reading.icap, "ICAP", icapStatus);
  return [icap, http === undefined ? undefined : responseFinding(facts, http.status, reading)].filter((one) => one !== undefined);
}

function responseFinding({ method, icapStatus, sentHttpStatus }: HeadFacts, status: number, reading: Reading): Finding | undefined {
  // Request satisfaction (RFC 3507 section 4.8): what was asked for is answered in its place, by a page of any status.
  if (method === "REQMOD" && icapStatus < 300) return { grade: "blocked", text: satisfaction(status) };
  return status === sentHttpStatus ? undefined : readStatus(reading.http, "HTTP", status);
}

function verdictOf({ grade, text }: Finding): Verdict {
  const said = printable(text);
  if (grade === "unscannable") return { outcome: "unscannable", why: said };
  if (grade === "error") return error(said);
  return grade === "modified" ? modified(said) : { outcome: "infected", threat: said };
}

function error(why: string): Verdict {
  return { outcome: "error", why };
}

function modified(why: string) {
  return { outcome: "modified", why } as const;
}

function statusText(status: number): string {
  return Number.isInteger(status) ? String(status) : "without a status";
}
