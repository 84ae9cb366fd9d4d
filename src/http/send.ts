/**
 * Answers on their way to the client, through Node's own answer in place of a Response of the web, which would be made only to be taken apart again.
 * Every one has the common headers.
 */
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import type { Context } from "hono";
import { COMMON_HEADERS } from "./common-headers.ts";
import type { HttpEnv } from "./env.ts";

type Headers = Readonly<Record<string, string>>;

/** Answers with this body, and so ends the answer; the request's report gets the status. To HEAD, Node sends the headers alone, whose `content-length` may then be of a body that is not here. */
export function send(context: Context<HttpEnv>, status: number, headers: Headers, body: string | Buffer = ""): Response {
  const { env } = context;
  const { outgoing } = env;
  env.status = status;
  if (outgoing.headersSent) {
    // Something else is on its way, and this would be taken for a part of it.
    outgoing.destroy();
    return RESPONSE_ALREADY_SENT;
  }
  // The client may have gone; what is written to nobody does no harm.
  outgoing.writeHead(status, { ...COMMON_HEADERS, "content-length": Buffer.byteLength(body), ...headers });
  outgoing.end(body);
  return RESPONSE_ALREADY_SENT;
}

/** Answers with this value. */
export function sendJson(context: Context<HttpEnv>, status: number, value: unknown, headers: Headers = {}): Response {
  return send(context, status, { ...headers, "content-type": "application/json" }, JSON.stringify(value));
}
