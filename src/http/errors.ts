/** Failures become answers: written down as they are, in the form of the route, nothing else decided. */
import type { Context, MiddlewareHandler } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { asGatewayError } from "../errors.ts";
import type { HttpEnv } from "./env.ts";

/** For a group of routes of the client-server API: what fails there is answered in the standard form. */
export const inStandardForm: MiddlewareHandler<HttpEnv> = async (context, next) => {
  context.set("errorForm", "matrix");
  await next();
};

/** The answer to a request that failed; the failure is noted for the request's report. */
export function errorAnswer(context: Context<HttpEnv>, thrown: unknown): Response {
  const failure = asGatewayError(thrown);
  context.set("failure", failure);
  return context.json(failure.body(context.get("errorForm")), failure.status as ContentfulStatusCode, { ...failure.headers });
}
