/** What an answer that is not media, or none, means to the client that asked for it. */
import { GatewayError } from "../errors.ts";
import { readBounded } from "./bounded-body.ts";
import type { Answer } from "./outbound.ts";

const MAX_ERROR_BODY = 64 * 1024;
const MAX_ERROR_TEXT = 256;
/** Seconds. */
const MAX_RETRY_AFTER = 3600;
const ERRCODE = /^[A-Z][A-Z0-9_.]{1,63}$/i;

/** The homeserver's standard error, as far as it is well-formed. */
export interface MatrixError {
  readonly errcode: string | undefined;
  readonly error: string | undefined;
  readonly softLogout: boolean;
  readonly retryAfterMs: number | undefined;
}

export interface AnswerContext {
  /** Whether this request carried the client's Authorization. */
  readonly authorized: boolean;
  /** Milliseconds since the epoch. */
  readonly now: number;
  readonly signal: AbortSignal;
}

/**
 * Reads an answer whose status is not 200 and tells what it comes to. Only the configured homeserver is believed about tokens: a client
 * that hears of an unknown token logs its user out, so neither a stranger nor a proxy's own 401 may say so. A 403 (a member of
 * another room, a suspended user, a proxy's rule) is a failure like any other: no reason that clients know would fit it.
 * @throws the signal's reason
 */
export async function errorFromAnswer(answer: Answer, context: AnswerContext): Promise<GatewayError> {
  const status = answer.statusCode;
  const matrix = parseMatrixError(await readBounded(answer.body, MAX_ERROR_BODY, context.signal));
  const detail = `${answer.fromHome ? "the homeserver" : "a server that is not configured"} answered ${status} ${matrix.errcode ?? "without an errcode"}`;

  if (status === 404 || (status === 400 && matrix.errcode === "M_UNRECOGNIZED")) return new GatewayError("not_found", { detail });
  if (status === 401 && answer.fromHome) return tokenError(matrix, context.authorized, detail);
  if (status === 429) {
    const retryAfter = retryAfterOf(answer.headers["retry-after"], matrix.retryAfterMs, context.now);
    return new GatewayError("rate_limited", { detail, ...(retryAfter === undefined ? {} : { retryAfter }) });
  }
  if (status === 504 && matrix.errcode === "M_NOT_YET_UPLOADED") return new GatewayError("not_yet_uploaded", { detail });
  return new GatewayError("homeserver_failed", { detail });
}

function tokenError(matrix: MatrixError, authorized: boolean, detail: string): GatewayError {
  if (!authorized || matrix.errcode === "M_MISSING_TOKEN") return new GatewayError("missing_token", { detail });
  if (matrix.errcode === undefined) return new GatewayError("homeserver_failed", { detail });
  const { errcode, error = "Unknown access token", softLogout } = matrix;
  return new GatewayError("unknown_token", { detail, token: { errcode, error, softLogout } });
}

export function parseMatrixError(bytes: Buffer | undefined): MatrixError {
  const body = parseObject(bytes) ?? {};
  const { errcode, error, soft_logout: softLogout, retry_after_ms: retryAfterMs } = body;
  return {
    errcode: typeof errcode === "string" && ERRCODE.test(errcode) ? errcode : undefined,
    error: typeof error === "string" ? error.slice(0, MAX_ERROR_TEXT).toWellFormed() : undefined,
    softLogout: softLogout === true,
    retryAfterMs: typeof retryAfterMs === "number" && Number.isFinite(retryAfterMs) ? retryAfterMs : undefined,
  };
}

/** The JSON object that these bytes are; undefined when they are none. */
export function parseObject(bytes: Buffer | undefined): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(bytes?.toString("utf8") ?? "");
    return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}

/** Whole seconds from 1 to an hour, from a Retry-After of seconds or a date, else from the body's milliseconds. */
export function retryAfterOf(header: string | string[] | undefined, retryAfterMs: number | undefined, now: number): number | undefined {
  let seconds: number | undefined;
  if (typeof header === "string" && /^[0-9]{1,10}$/.test(header.trim())) seconds = Number(header);
  else if (typeof header === "string" && !Number.isNaN(Date.parse(header))) seconds = (Date.parse(header) - now) / 1000;
  else if (retryAfterMs !== undefined) seconds = retryAfterMs / 1000;
  return seconds === undefined ? undefined : Math.min(MAX_RETRY_AFTER, Math.max(1, Math.ceil(seconds)));
}
