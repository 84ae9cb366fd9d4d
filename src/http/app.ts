/** The gateway's HTTP side: routes, CORS, errors, and one report for each request. */
import { Hono } from "hono";
import { routePath } from "hono/route";
import { GatewayError } from "../errors.ts";
import type { RequestReport } from "../observability/reports.ts";
import { clientMediaRoutes, type TransparentOptions } from "./client-media-routes.ts";
import { type HttpEnv, type RequestInHand, takeInHand } from "./env.ts";
import { errorAnswer } from "./errors.ts";
import { type MediaRoutesOptions, mediaRoutes } from "./media-routes.ts";
import { type FileChecker, scanFileRoute } from "./scan-file-route.ts";
import { send } from "./send.ts";
import type { Application } from "./server.ts";
import { type Uploader, uploadRoutes } from "./upload-routes.ts";

export type { RequestReport } from "../observability/reports.ts";

export interface AppOptions extends MediaRoutesOptions {
  /** Undefined where uploads don't come this way: their paths are unknown then. */
  readonly uploads?: Uploader;
  /** Undefined where files are not checked before. */
  readonly fileChecks?: FileChecker;
  /** What this gateway calls itself to the homeserver. */
  readonly pseudonym: string;
  /** Whether the homeserver's own media paths are served as well, and how. */
  readonly transparent?: TransparentOptions | undefined;
  /** Called once for each request, when the last byte of its answer is out, or will never be. */
  readonly report: (report: RequestReport) => void;
}

/** What all paths of the content-scanner API begin with. */
export const BASE_PATH = "/_matrix/media_proxy/unstable";

/**
 * The listener that clients reach: the content-scanner API under `BASE_PATH`, the homeserver's paths for media and for uploads, each if they are to be
 * served, and nothing else. Every answer, an error too, carries CORS headers and must not be cached; `OPTIONS` is 200 on any path. An error's answer is what its `GatewayError` says, and whatever is
 * thrown that is none is `internal`.
 */
export function createApp(options: AppOptions): Application {
  const app = new Hono<HttpEnv>();
  app.options("*", (context) => {
    context.env.route = routePath(context, -1);
    return send(context, 200, {});
  });
  app.route(BASE_PATH, mediaRoutes(options));
  const { uploads, fileChecks } = options;
  if (fileChecks !== undefined) app.route(BASE_PATH, scanFileRoute({ ...options, fileChecks }));
  if (uploads !== undefined) app.route("/_matrix/media", uploadRoutes({ ...options, uploads }));
  if (options.transparent !== undefined) app.route("/", clientMediaRoutes({ ...options, ...options.transparent }));
  app.notFound((context) => errorAnswer(context, new GatewayError("unrecognized_route")));
  app.onError((thrown, context) => errorAnswer(context, thrown));
  return {
    // Around Hono, not as its middleware: what has one handler is then called without being composed anew each time.
    async fetch(request, bindings) {
      const started = performance.now();
      const inHand = takeInHand(bindings);
      const answer = await app.fetch(request, inHand);
      options.report(reportOf(request, inHand, performance.now() - started));
      return answer;
    },
    refused: (failure) => options.report({ ...UNREADABLE, status: failure.status, error: failure }),
  };
}

function reportOf(
  { method }: Request,
  { route, status, failure, mxc, journal, delivery }: RequestInHand,
  durationMs: number,
): RequestReport {
  return {
    method,
    route,
    status,
    error: failure,
    mxc,
    journal,
    durationMs,
    sent: delivery?.sent ?? 0,
    complete: delivery?.complete ?? true,
    deliveryError: delivery?.error,
  };
}

/** The report of what never became a request. */
const UNREADABLE = {
  method: "",
  route: "",
  mxc: undefined,
  journal: {},
  durationMs: 0,
  sent: 0,
  complete: true,
  deliveryError: undefined,
};
