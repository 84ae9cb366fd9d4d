/** Routes of the APIs, each with the one method that it takes. */
import type { Context, Hono } from "hono";
import { routePath } from "hono/route";
import { GatewayError } from "../errors.ts";
import type { HttpEnv } from "./env.ts";

/** One path; any method but its own, HEAD (of GET) and OPTIONS is answered 405. */
export interface Route {
  readonly method: "GET" | "POST" | "PUT";
  readonly path: string;
  readonly handle: (context: Context<HttpEnv>) => Response | Promise<Response>;
}

const ALLOW = { GET: "GET, HEAD, OPTIONS", POST: "POST, OPTIONS", PUT: "PUT, OPTIONS" } as const;

/** Puts them into the application, in this order. */
export function mount(app: Hono<HttpEnv>, routes: readonly Route[]): void {
  for (const { method, path, handle } of routes) {
    // One handler for all methods: where it is the only one on a path, Hono calls it without the machinery of its middleware.
    app.all(path, (context) => {
      const asked = context.req.method;
      if (asked !== method && !(asked === "HEAD" && method === "GET"))
        throw new GatewayError("method_not_allowed", { allow: ALLOW[method] });
      context.env.route = routePath(context);
      return handle(context);
    });
  }
}
