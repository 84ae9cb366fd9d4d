/**
 * Every failure that a client may see is born here, complete: a stable code, the HTTP status, the body in each form that clients read.
 * `http/errors` renders it in the form of the route it is answered on and decides nothing else; the log shows `code` and `cause`, which the
 * client never sees.
 */

/** The closed set of reasons that shipped clients can read; an unknown one breaks the Rust SDK. */
export type Reason =
  | "MCS_MALFORMED_JSON"
  | "MCS_MEDIA_FAILED_TO_DECRYPT"
  | "M_MISSING_TOKEN"
  | "M_UNKNOWN_TOKEN"
  | "M_NOT_FOUND"
  | "MCS_MEDIA_NOT_CLEAN"
  | "MCS_MIME_TYPE_FORBIDDEN"
  | "MCS_BAD_DECRYPTION"
  | "M_UNKNOWN"
  | "MCS_MEDIA_REQUEST_FAILED";

interface Answer {
  readonly status: number;
  readonly reason: Reason;
  readonly info: string;
}

const ANSWERS = {
  bad_request: { status: 400, reason: "M_UNKNOWN", info: "Unrecognized request" },
  malformed_request: { status: 400, reason: "MCS_MALFORMED_JSON", info: "The request body is not what this endpoint expects" },
  request_too_large: { status: 413, reason: "MCS_MALFORMED_JSON", info: "The request body is too large" },
  bad_media_id: { status: 400, reason: "M_UNKNOWN", info: "Not a valid media ID or server name" },
  bad_parameter: { status: 400, reason: "M_UNKNOWN", info: "Not a valid query parameter" },
  bad_decryption: { status: 403, reason: "MCS_BAD_DECRYPTION", info: "The encrypted body could not be decrypted" },
  failed_to_decrypt: { status: 400, reason: "MCS_MEDIA_FAILED_TO_DECRYPT", info: "The media could not be decrypted" },
  missing_token: { status: 401, reason: "M_MISSING_TOKEN", info: "The homeserver asks for an access token" },
  unknown_token: { status: 401, reason: "M_UNKNOWN_TOKEN", info: "The homeserver does not know this access token" },
  not_found: { status: 404, reason: "M_NOT_FOUND", info: "The media was not found" },
  not_yet_uploaded: { status: 504, reason: "M_UNKNOWN", info: "The media has not been uploaded yet" },
  homeserver_failed: { status: 502, reason: "MCS_MEDIA_REQUEST_FAILED", info: "The media could not be fetched from the homeserver" },
  infected: { status: 403, reason: "MCS_MEDIA_NOT_CLEAN", info: "***VIRUS DETECTED***" },
  blocked: { status: 403, reason: "MCS_MEDIA_NOT_CLEAN", info: "This file was blocked by an administrator" },
  modified: { status: 403, reason: "MCS_MEDIA_NOT_CLEAN", info: "The scanner replaced the media, so it is blocked" },
  unscannable: { status: 403, reason: "MCS_MEDIA_NOT_CLEAN", info: "The media can't be scanned, so it is blocked" },
  too_large: { status: 403, reason: "MCS_MEDIA_NOT_CLEAN", info: "The media is too large to be scanned" },
  upload_too_large: { status: 413, reason: "MCS_MEDIA_NOT_CLEAN", info: "The file is too large" },
  upload_too_slow: { status: 408, reason: "M_UNKNOWN", info: "The file came too slowly" },
  type_forbidden: { status: 403, reason: "MCS_MIME_TYPE_FORBIDDEN", info: "Media of this type is not allowed" },
  opaque: {
    status: 403,
    reason: "MCS_MIME_TYPE_FORBIDDEN",
    info: "Encrypted files, and files of unknown type, are only served to clients that use the content scanner",
  },
  scanner_unavailable: { status: 503, reason: "M_UNKNOWN", info: "The media can't be scanned at the moment" },
  unclear_verdict: { status: 503, reason: "M_UNKNOWN", info: "The scanner's answer could not be understood" },
  beyond_proof: { status: 503, reason: "M_UNKNOWN", info: "The media is larger than the scanner is proven to scan" },
  still_scanning: { status: 503, reason: "M_UNKNOWN", info: "The scan is not done yet; ask again" },
  no_room: { status: 503, reason: "M_UNKNOWN", info: "There is no room for this media at the moment; ask again" },
  shutting_down: { status: 503, reason: "M_UNKNOWN", info: "The scanner is shutting down" },
  rate_limited: { status: 429, reason: "M_UNKNOWN", info: "Too many requests" },
  unrecognized_route: { status: 404, reason: "M_UNKNOWN", info: "Unrecognized request" },
  method_not_allowed: { status: 405, reason: "M_UNKNOWN", info: "Unrecognized request" },
  /** Never seen by anyone; the log's name for a request whose client left first. */
  client_gone: { status: 499, reason: "M_UNKNOWN", info: "The client has gone" },
  internal: { status: 500, reason: "M_UNKNOWN", info: "Internal error" },
} as const satisfies Record<string, Answer>;

/** Stable and documented; logs, metrics and code tell failures apart by it, never by their text. */
export type ErrorCode = keyof typeof ANSWERS;

/**
 * Who reads the body. `scanner`: clients of the content-scanner API, most of which read `{reason, info}` and drop `reason` when they see an
 * `errcode`. `matrix`: clients of the client-server API, which read the standard `{errcode, error}`; `reason` and `info` stand beside them where a
 * client of the scanner API would have got them.
 * https://spec.matrix.org/v1.19/client-server-api/#standard-error-response
 */
export type ErrorForm = "scanner" | "matrix";

export interface GatewayErrorOptions {
  /** What went wrong, for the log alone. */
  readonly detail?: string;
  readonly cause?: unknown;
  /** Seconds after which the client may ask again; sent as `Retry-After`. */
  readonly retryAfter?: number;
  /** A text for the client in place of the code's own. */
  readonly info?: string;
  /** The homeserver's own words about an unknown token. */
  readonly token?: { readonly errcode: string; readonly error: string; readonly softLogout: boolean };
  /** The methods a known route does take, for `Allow`. */
  readonly allow?: string;
}

/** The standard error codes; of what is not here, `M_UNKNOWN`. */
const ERRCODES: Partial<Record<ErrorCode, string>> = {
  bad_request: "M_UNRECOGNIZED",
  malformed_request: "M_BAD_JSON",
  request_too_large: "M_TOO_LARGE",
  bad_media_id: "M_INVALID_PARAM",
  bad_parameter: "M_INVALID_PARAM",
  bad_decryption: "M_FORBIDDEN",
  missing_token: "M_MISSING_TOKEN",
  unknown_token: "M_UNKNOWN_TOKEN",
  not_found: "M_NOT_FOUND",
  not_yet_uploaded: "M_NOT_YET_UPLOADED",
  infected: "M_FORBIDDEN",
  blocked: "M_FORBIDDEN",
  modified: "M_FORBIDDEN",
  unscannable: "M_FORBIDDEN",
  too_large: "M_FORBIDDEN",
  upload_too_large: "M_TOO_LARGE",
  type_forbidden: "M_FORBIDDEN",
  opaque: "M_FORBIDDEN",
  rate_limited: "M_LIMIT_EXCEEDED",
  unrecognized_route: "M_UNRECOGNIZED",
  method_not_allowed: "M_UNRECOGNIZED",
};

/** Where clients of the scanner API honour nothing but the standard form. */
const STANDARD_ONLY: ReadonlySet<ErrorCode> = new Set(["rate_limited", "bad_request", "unrecognized_route", "method_not_allowed"]);
/** The Rust SDK refreshes an expired token only on `errcode`. */
const BOTH: ReadonlySet<ErrorCode> = new Set(["unknown_token"]);

/** Codes after which asking again makes sense, and the seconds that are suggested when nobody knows better. */
const RETRY_AFTER: Partial<Record<ErrorCode, number>> = {
  scanner_unavailable: 10,
  unclear_verdict: 10,
  beyond_proof: 60,
  still_scanning: 5,
  no_room: 5,
  shutting_down: 5,
  rate_limited: 2,
};

export class GatewayError extends Error {
  override readonly name = "GatewayError";
  readonly code: ErrorCode;
  readonly status: number;
  /** What a client may show its user. */
  readonly info: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly #standard: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, options: GatewayErrorOptions = {}) {
    super(options.detail === undefined ? code : `${code}: ${options.detail}`, { cause: options.cause });
    const answer: Answer = ANSWERS[code];
    this.code = code;
    this.status = answer.status;
    this.info = options.info ?? answer.info;
    const retryAfter = options.retryAfter ?? RETRY_AFTER[code];
    this.headers = {
      ...(retryAfter === undefined ? {} : { "retry-after": String(Math.ceil(retryAfter)) }),
      ...(options.allow === undefined ? {} : { allow: options.allow }),
    };
    this.#standard = {
      errcode: options.token?.errcode ?? ERRCODES[code] ?? "M_UNKNOWN",
      error: options.token?.error ?? this.info,
      ...(options.token === undefined ? {} : { soft_logout: options.token.softLogout }),
      ...(code === "rate_limited" && retryAfter !== undefined ? { retry_after_ms: Math.ceil(retryAfter * 1000) } : {}),
    };
  }

  /** The JSON body that the client gets. */
  body(form: ErrorForm): Readonly<Record<string, unknown>> {
    if (STANDARD_ONLY.has(this.code)) return this.#standard;
    const scanner = { reason: ANSWERS[this.code].reason, info: this.info };
    return form === "matrix" || BOTH.has(this.code) ? { ...this.#standard, ...scanner } : scanner;
  }
}

/** The error as it is, or wrapped as `internal`: nothing that was not born here reaches a client with its own text. */
export function asGatewayError(error: unknown): GatewayError {
  return error instanceof GatewayError ? error : new GatewayError("internal", { cause: error });
}

/** The system's or a library's name for an error (`ENOENT`, `UND_ERR_SOCKET`); undefined for one without a name, and for what is no error. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}
