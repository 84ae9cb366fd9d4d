/** The homeserver's answers to what is forwarded to it: small JSON objects, and nothing else. */
import { GatewayError } from "../errors.ts";
import { readBounded } from "./bounded-body.ts";
import { parseMatrixError, parseObject, retryAfterOf } from "./homeserver-answer.ts";
import type { Answer } from "./outbound.ts";
import type { HomeserverAnswer } from "./source.ts";

/** Bytes; what a page says of itself is a few kilobytes. */
const MAX_BODY = 256 * 1024;

/**
 * A JSON object with status 200 as it is; a standard error with its own status, written anew from what the standard knows.
 * @param now milliseconds since the epoch
 * @throws GatewayError `homeserver_failed` for anything else, and for all that the configured homeserver itself did not say; the signal's reason
 */
export async function readForwarded(answer: Answer, now: number, signal: AbortSignal): Promise<HomeserverAnswer> {
  const { statusCode: status, headers, fromHome } = answer;
  const bytes = await readBounded(answer.body, MAX_BODY, signal);
  if (!fromHome) throw refused("the homeserver sent the request elsewhere");
  if (bytes === undefined) throw refused("an answer that is too long, too slow or cut short");
  if (status === 200) {
    if (parseObject(bytes) === undefined) throw refused("an answer that is no JSON object");
    return { status, body: bytes, retryAfter: undefined };
  }
  const { errcode, error = "", softLogout, retryAfterMs } = parseMatrixError(bytes);
  if (status < 400 || errcode === undefined) throw refused(`the homeserver answered ${status} without an errcode`);
  const body = {
    errcode,
    error,
    ...(errcode === "M_UNKNOWN_TOKEN" ? { soft_logout: softLogout } : {}),
    ...(status === 429 && retryAfterMs !== undefined ? { retry_after_ms: retryAfterMs } : {}),
  };
  return {
    status,
    body: Buffer.from(JSON.stringify(body)),
    retryAfter: retryAfterOf(headers["retry-after"], retryAfterMs, now)?.toString(),
  };
}

function refused(detail: string): GatewayError {
  return new GatewayError("homeserver_failed", { detail });
}
