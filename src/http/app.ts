/** The gateway's HTTP side: routes, CORS, errors, and one report for each request. */
import { Hono } from "hono";
import { routePath } from "hono/route";
import { GatewayError } from "../errors.ts";
import type { Mxc } from "../media/source.ts";
import type { Journal } from "../scan/request.ts";
import { COMMON_HEADERS } from "./common-headers.ts";
import type { HttpEnv } from "./env.ts";
import { errorAnswer } from "./errors.ts";
import { type MediaRoutesOptions, mediaRoutes } from "./media-routes.ts";

/** What one request came to. */
export interface RequestReport {
  readonly method: string;
  /** The route's pattern, never the path: a path may name what nobody else should know. */
  readonly route: string;
  readonly status: number;
  readonly error: GatewayError | undefined;
  readonly mxc: Mxc | undefined;
  readonly journal: Journal;
  /** Milliseconds from the request's head to the last byte of the answer. */
  readonly durationMs: number;
  /** Bytes of media that were sent. */
  readonly sent: number;
  /** False when the client left, or the media failed, before the last byte. */
  readonly complete: boolean;
  readonly deliveryError: unknown;
}

export interface AppOptions extends MediaRoutesOptions {
  readonly report: (report: RequestReport) => void;
}

export const BASE_PATH = "/_matrix/media_proxy/unstable";

/** The methods of each route; any other is answered 405. */
const METHODS: readonly (readonly [path: string, allow: string])[] = [
  ["/download/:serverName/:mediaId", "GET, HEAD, OPTIONS"],
  ["/thumbnail/:serverName/:mediaId", "GET, HEAD, OPTIONS"],
  ["/scan/:serverName/:mediaId", "GET, HEAD, OPTIONS"],
  ["/public_key", "GET, HEAD, OPTIONS"],
  ["/download_encrypted", "POST, OPTIONS"],
  ["/scan_encrypted", "POST, OPTIONS"],
];

export function createApp(options: AppOptions): Hono<HttpEnv> {
  const app = new Hono<HttpEnv>();
  app.use(async (context, next) => {
    const started = performance.now();
    context.set("journal", {});
    for (const [name, value] of Object.entries(COMMON_HEADERS)) context.header(name, value);
    await next();
    const delivery = context.get("delivery");
    options.report({
      method: context.req.method,
      route: routePath(context, -1),
      status: delivery === undefined ? context.res.status : 200,
      error: context.get("failure"),
      mxc: context.get("mxc"),
      journal: context.get("journal"),
      durationMs: performance.now() - started,
      sent: delivery?.sent ?? 0,
      complete: delivery?.complete ?? true,
      deliveryError: delivery?.error,
    });
  });
  app.options("*", (context) => context.body(null, 200));
  app.route(BASE_PATH, mediaRoutes(options));
  for (const [path, allow] of METHODS) {
    app.all(BASE_PATH + path, () => {
      throw new GatewayError("method_not_allowed", { allow });
    });
  }
  app.notFound((context) => errorAnswer(context, new GatewayError("unrecognized_route")));
  app.onError((thrown, context) => errorAnswer(context, thrown));
  return app;
}
