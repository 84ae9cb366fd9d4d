/** Failures become answers: written down as they are, nothing decided. */
import type { Context } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { asGatewayError } from "../errors.ts";
import type { HttpEnv } from "./env.ts";

/** The answer to a request that failed; the failure is noted for the request's report. */
export function errorAnswer(context: Context<HttpEnv>, thrown: unknown): Response {
  const failure = asGatewayError(thrown);
  context.set("failure", failure);
  return context.json(failure.body, failure.status as ContentfulStatusCode, { ...failure.headers });
}
