import type { HeaderBlock } from "../codec/headers.ts";
import type { Verdict } from "../verdict.ts";
import type { Answer } from "./answer.ts";
import { beginsWith } from "./echo.ts";
import { SENT_HTTP_STATUS } from "./messages.ts";
import type { IcapScanRequest, IcapScanResult } from "./types.ts";

/** 201 is Symantec Protection Engine's. A 206 holds parts of a body only. */
const WHOLE: readonly number[] = [200, 201];
const CONTENT_TYPE = /^[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?$/;

/**
 * What a RESPMOD service sent in the file's stead, if that is a file. It is not when its own head says that it is of another length or
 * encoded, nor when one of the two begins with the other: a server that trickles sends a file's first bytes on while it scans, and breaks off when it
 * finds something; and the whole file with something behind it is no less than the file. That takes another pass over the file.
 *
 * A part of the file with something behind it can't be told from a sanitised file: one that was changed in its middle alone (HTML, CSV, mail, an archive
 * without one of its members) has the file's first bytes too. So whoever hands a replacement on has it scanned.
 * @throws whatever the body throws; the request's signal's reason.
 */
export async function replacementIn(answer: Answer, verdict: Verdict, request: IcapScanRequest): Promise<IcapScanResult["replacement"]> {
  const { http, returned } = answer;
  if (verdict.outcome !== "modified" || request.returned === undefined || returned === undefined || http === undefined) return undefined;
  if (!WHOLE.includes(answer.status) || http.status !== SENT_HTTP_STATUS || !isPlain(http.headers, returned.size)) return undefined;
  const { size, sha256 } = returned;
  if (size === 0) return undefined;
  const common = Math.min(size, request.size);
  if (common > 0 && (await beginsWith(request.body(), common, sha256, request.signal))) return undefined;
  return { size, contentType: contentTypeOf(http.headers) };
}

/** What a head says of its body, when that is printable and not too long. */
export function contentTypeOf(headers: HeaderBlock): string | undefined {
  const contentType = headers.get("content-type");
  return contentType !== undefined && CONTENT_TYPE.test(contentType) ? contentType : undefined;
}

/** Whether a head goes with these bytes as a file of its own. */
function isPlain(headers: HeaderBlock, size: number): boolean {
  const encodings = headers.all("content-encoding").filter((value) => value !== "" && value.toLowerCase() !== "identity");
  const lengths = headers.all("content-length").filter((value) => !/^\d{1,15}$/.test(value) || Number(value) !== size);
  return encodings.length === 0 && lengths.length === 0 && headers.get("content-range") === undefined;
}
