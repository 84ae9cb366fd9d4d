import { IcapError } from "../../icap/index.ts";
import { formatTime } from "./format-time.ts";

/** Why there is no verdict. */
export interface Failure {
  /** An IcapErrorCode, or a code of this command's own. */
  readonly code: string;
  /** One line. */
  readonly why: string;
}

/**
 * What a failed question to a service amounts to. `timeout` is what it was allowed to take.
 * @throws the error itself when it is neither an IcapError nor the end of that time: the user's own signal, or a fault of ours.
 */
export function failureOf(error: unknown, timeout: number): Failure {
  if (error instanceof IcapError) return { code: error.code, why: error.message };
  if (error instanceof DOMException && error.name === "TimeoutError") {
    return { code: "timeout", why: `no answer within ${formatTime(timeout)}` };
  }
  throw error;
}
