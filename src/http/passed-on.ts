/** The homeserver's own answer on its way to the client. */
import type { Context } from "hono";
import type { HomeserverAnswer } from "../media/source.ts";
import type { HttpEnv } from "./env.ts";
import { send } from "./send.ts";

/** Its status, its JSON and its Retry-After, and no other header of it. */
export function passedOn(context: Context<HttpEnv>, { status, retryAfter, body }: HomeserverAnswer): Response {
  const headers = {
    "content-type": "application/json",
    "x-content-type-options": "nosniff",
    ...(retryAfter === undefined ? {} : { "retry-after": retryAfter }),
  };
  return send(context, status, headers, body);
}
