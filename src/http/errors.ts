/** Failures become answers: written down as they are, in the form of the route, nothing else decided. */
import type { Context, MiddlewareHandler } from "hono";
import { routePath } from "hono/route";
import { asGatewayError } from "../errors.ts";
import type { HttpEnv } from "./env.ts";
import { sendJson } from "./send.ts";

/** For a group of routes of the client-server API: what fails there is answered in the standard form. */
export const inStandardForm: MiddlewareHandler<HttpEnv> = async (context, next) => {
  context.env.errorForm = "matrix";
  await next();
};

/** The answer to a request that failed; the failure is noted for the request's report. */
export function errorAnswer(context: Context<HttpEnv>, thrown: unknown): Response {
  const failure = asGatewayError(thrown);
  const { env } = context;
  // What fails before its handler, or has none, has not been given one yet.
  env.route = routePath(context, -1);
  env.failure = failure;
  return sendJson(context, failure.status, failure.body(env.errorForm), failure.headers);
}
