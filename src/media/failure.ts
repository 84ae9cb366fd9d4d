/** What went wrong with an exchange, in the terms of those that asked for it. */
import { codeOf, GatewayError } from "../errors.ts";
import { AddressRefusedError } from "./address-guard.ts";

/** The signal's reason as it is, a GatewayError as it is, anything else as `homeserver_failed`; undefined: the body ended without a word. */
export function failure(error: unknown, signal: AbortSignal): Error {
  if (signal.aborted && signal.reason instanceof Error) return signal.reason;
  if (error instanceof GatewayError) return error;
  return new GatewayError("homeserver_failed", { detail: describe(error) });
}

/** Never the error itself, nor all of it: parsers' errors carry the peer's raw bytes along. */
function describe(error: unknown): string {
  if (error === undefined) return "the body was cut short";
  if (!(error instanceof Error)) return "an unknown failure";
  const message =
    error instanceof AddressRefusedError || error.message === "" ? error.message : JSON.stringify(error.message.slice(0, 200));
  return `${codeOf(error) ?? error.name} ${message}`.trimEnd();
}
