/** Which headers go to the configured homeserver, and which never do. */
import { GatewayError } from "../errors.ts";
import type { Credentials } from "./source.ts";

/** RFC 9110: a token; and a field value of visible characters, spaces, tabs and obs-text. */
const NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

/**
 * Names that neither the operator nor a client sets: those of a connection or a message, those that would have the homeserver answer with less than
 * the whole media or with something other than its bytes, and Authorization, which is the client's own and comes by a way of its own.
 */
const NEVER_SENT =
  /^(accept-encoding|authorization|connection|content-.*|expect|http2-settings|if-.*|keep-alive|proxy-.*|range|te|trailer|transfer-encoding|upgrade)$/;

/**
 * The operator's own headers, by lower-case name.
 * @throws TypeError that names the header which can't be sent
 */
export function checkAdditionalHeaders(headers: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  const checked: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    const lower = name.toLowerCase();
    if (!NAME.test(name)) throw new TypeError(`${JSON.stringify(name)} is not a header's name`);
    if (!VALUE.test(value)) throw new TypeError(`the value of the header ${lower} has characters that can't be sent`);
    if (NEVER_SENT.test(lower)) throw new TypeError(`the header ${lower} can't be added to requests for media`);
    checked[lower] = value;
  }
  return checked;
}

/** The client's Authorization if it sent one. @throws GatewayError `missing_token` for one that no token has */
export function authorizationOf({ authorization }: Credentials): string | undefined {
  const value = authorization?.trim();
  if (value === undefined || value === "") return undefined;
  if (!VALUE.test(value)) throw new GatewayError("missing_token", { detail: "an Authorization header with characters that can't be sent" });
  return value;
}

/** All that the configured homeserver gets from a client and from the operator, whose own headers win over a client's. */
export function homeHeaders(
  credentials: Credentials,
  authorization: string | undefined,
  additional: Readonly<Record<string, string>>,
): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(credentials.forwarded)) {
    const lower = name.toLowerCase();
    if (NAME.test(name) && VALUE.test(value) && !NEVER_SENT.test(lower)) headers[lower] = value;
  }
  Object.assign(headers, additional);
  if (authorization !== undefined) headers["authorization"] = authorization;
  return headers;
}
