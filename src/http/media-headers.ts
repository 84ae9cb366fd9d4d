/** Headers of media answers: what a homeserver, and behind it an uploader, claims is only passed on where it can do no harm. */
import { create, parse as parseDisposition } from "content-disposition";
import { format, parse as parseType } from "content-type";

/** Types that browsers may show in place (Matrix specification v1.19, "Serving inline content"); all else is for downloading. */
const INLINE: ReadonlySet<string> = new Set([
  "text/css",
  "text/plain",
  "text/csv",
  "application/json",
  "application/ld+json",
  "image/jpeg",
  "image/gif",
  "image/png",
  "image/apng",
  "image/webp",
  "image/avif",
  "video/mp4",
  "video/webm",
  "video/ogg",
  "video/quicktime",
  "audio/mp4",
  "audio/webm",
  "audio/aac",
  "audio/mpeg",
  "audio/ogg",
  "audio/wave",
  "audio/wav",
  "audio/x-wav",
  "audio/x-pn-wav",
  "audio/flac",
  "audio/x-flac",
]);

const DEFAULT_TYPE = "application/octet-stream";
const MAX_TYPE_LENGTH = 255;
const MAX_FILENAME_LENGTH = 255;

/** As the specification asks of a homeserver ("Content Repository", Security considerations). */
const SECURITY_HEADERS = {
  "content-security-policy":
    "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; style-src 'unsafe-inline'; object-src 'self';",
  "cross-origin-resource-policy": "cross-origin",
  "x-content-type-options": "nosniff",
};

/**
 * The headers of an answer with media. In goes what the homeserver said of it, and `size` in bytes; out come lower-case names. Type and file name
 * are kept as far as they parse and are harmless, never as they came; what browsers might run is for downloading. Never throws.
 * @param requestedName the file name that the client wants in place of the homeserver's
 */
export function mediaHeaders(
  media: { readonly contentType: string | undefined; readonly contentDisposition: string | undefined; readonly size: number },
  requestedName?: string,
): Record<string, string> {
  const type = safeType(media.contentType);
  const filename = safeName(requestedName) ?? safeName(filenameIn(media.contentDisposition));
  return {
    ...SECURITY_HEADERS,
    "content-type": type.header,
    "content-disposition": create(filename, { type: INLINE.has(type.essence) ? "inline" : "attachment" }),
    "content-length": String(media.size),
  };
}

/** A media type written anew, whatever was claimed; and its essence, in lower case. */
export function safeType(claimed: string | undefined): { header: string; essence: string } {
  if (claimed !== undefined && claimed.length <= MAX_TYPE_LENGTH) {
    try {
      const { type, parameters } = parseType(claimed);
      // Written anew from its parsed parts, so that nothing unparsed is passed on.
      return { header: format({ type, parameters }), essence: type.toLowerCase() };
    } catch {
      // Not a media type at all.
    }
  }
  return { header: DEFAULT_TYPE, essence: DEFAULT_TYPE };
}

function filenameIn(disposition: string | undefined): string | undefined {
  if (disposition === undefined) return undefined;
  try {
    return parseDisposition(disposition).parameters["filename"];
  } catch {
    return undefined;
  }
}

/** The last part of the name, without what could break out of a header or a folder; undefined when nothing is left. */
function safeName(claimed: string | undefined): string | undefined {
  const name = claimed
    ?.split(/[/\\]/u)
    .at(-1)
    // oxlint-disable-next-line no-control-regex -- control characters are what has to go
    ?.replaceAll(/[\u0000-\u001f\u007f\u202a-\u202e\u2066-\u2069]/gu, "")
    .slice(0, MAX_FILENAME_LENGTH);
  return name === undefined || /^\.*$/u.test(name) ? undefined : name.toWellFormed();
}
