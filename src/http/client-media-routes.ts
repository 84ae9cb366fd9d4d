/** The homeserver's own media paths, for clients that know nothing of scanners. */
import { type Context, Hono } from "hono";
import { GatewayError } from "../errors.ts";
import { parseMxc } from "../media/mxc.ts";
import type { AskedEndpoint, HomeserverAnswer, ForwardedRequest, MediaApi, MediaVariant } from "../media/source.ts";
import type { ForwardingClient } from "../scan/forwarding.ts";
import { Caller, type CallerOptions, clientSignal } from "./caller.ts";
import type { HttpEnv } from "./env.ts";
import { inStandardForm } from "./errors.ts";
import { notFromItself } from "./not-from-itself.ts";
import { answerWith, type MediaPipeline } from "./media-answer.ts";
import { passedOn } from "./passed-on.ts";
import { mount, type Route } from "./route.ts";
import { flag, thumbnailVariant } from "./thumbnail.ts";

export interface TransparentOptions {
  readonly forwarding: { ask(request: ForwardedRequest, client: ForwardingClient): Promise<HomeserverAnswer> };
  /** What happens to files no type of which is recognised, as ciphertext is. */
  readonly onOpaque: "pass" | "block";
}

export interface ClientMediaRoutesOptions extends CallerOptions, TransparentOptions {
  /** What this gateway calls itself to the homeserver. */
  readonly pseudonym: string;
  readonly pipeline: MediaPipeline;
}

/** Where clients ask, and which API of the homeserver's is asked for it: never another one, which might give them more. */
const PATHS: readonly (readonly [path: string, api: MediaApi])[] = [
  ["/_matrix/client/v1/media", "client/v1/media"],
  // What the authenticated API was called before it was in the specification (MSC3916).
  ["/_matrix/client/unstable/org.matrix.msc3916/media", "client/v1/media"],
  ["/_matrix/media/v3", "media/v3"],
  ["/_matrix/media/v1", "media/v1"],
  ["/_matrix/media/r0", "media/r0"],
];

/**
 * `download`, `thumbnail`, `config` and `preview_url` of the client-server API, and no other path of it:
 * https://spec.matrix.org/v1.19/client-server-api/#content-repository
 *
 * Media goes the same way as on the scanner API, and shares its verdicts. It is fetched from the API that the client asked, with the token that the
 * client sent, never from one that would give it more. The other two are passed on, written anew: whatever path nobody thought of ends here.
 */
export function clientMediaRoutes(options: ClientMediaRoutesOptions): Hono<HttpEnv> {
  const app = new Hono<HttpEnv>();
  const caller = new Caller(options);

  const media = (context: Context<HttpEnv>, api: MediaApi, variant: MediaVariant): Promise<Response> => {
    const { serverName = "", mediaId = "", filename } = context.req.param() as Record<string, string | undefined>;
    const ask = { mxc: parseMxc(serverName, mediaId), variant, attachment: undefined, asked: askedEndpoint(api, context.req.query()) };
    return answerWith(
      "media",
      options.pipeline,
      context,
      { ...ask, onOpaque: options.onOpaque, ...caller.ofClientServer(context) },
      filename,
    );
  };
  const forward = async (context: Context<HttpEnv>, request: ForwardedRequest): Promise<Response> => {
    const { credentials, client } = caller.ofClientServer(context);
    const signal = clientSignal(context.env.outgoing);
    return passedOn(context, await options.forwarding.ask(request, { credentials, client, signal }));
  };

  for (const path of ["/_matrix/client/*", "/_matrix/media/*"]) app.use(path, inStandardForm, notFromItself(options.pseudonym));
  for (const [path, api] of PATHS) {
    const download = (context: Context<HttpEnv>): Promise<Response> => media(context, api, { kind: "download" });
    const thumbnail = (context: Context<HttpEnv>): Promise<Response> => media(context, api, thumbnailVariant(context.req.query()));
    const routes: readonly Route[] = [
      { method: "GET", path: `${path}/download/:serverName/:mediaId`, handle: download },
      { method: "GET", path: `${path}/download/:serverName/:mediaId/:filename`, handle: download },
      { method: "GET", path: `${path}/thumbnail/:serverName/:mediaId`, handle: thumbnail },
      { method: "GET", path: `${path}/thumbnail/:serverName/:mediaId/:filename`, handle: thumbnail },
      { method: "GET", path: `${path}/config`, handle: (context) => forward(context, { api, endpoint: "config", query: {} }) },
      {
        method: "GET",
        path: `${path}/preview_url`,
        handle: (context) => forward(context, { api, endpoint: "preview_url", query: previewQuery(context.req.query()) }),
      },
    ];
    mount(app, routes);
  }
  return app;
}

/** `allow_redirect` is not passed on: who followed a redirect would have media that nobody scanned, and nobody has to be offered one. */
function askedEndpoint(api: MediaApi, query: Readonly<Record<string, string>>): AskedEndpoint {
  const timeoutMs = integer("timeout_ms", query["timeout_ms"]);
  const allowRemote = flag("allow_remote", query["allow_remote"]);
  return {
    api,
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(allowRemote === undefined ? {} : { allowRemote }),
  };
}

/** The page, and the point in time it is wanted from. What is missing is for the homeserver to say. */
function previewQuery({ url, ts }: Readonly<Record<string, string>>): Record<string, string> {
  const time = integer("ts", ts);
  return { ...(url === undefined ? {} : { url }), ...(time === undefined ? {} : { ts: String(time) }) };
}

function integer(name: string, value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  if (!/^\d{1,15}$/u.test(value)) throw new GatewayError("bad_parameter", { info: `${name} is a number of milliseconds` });
  return Number(value);
}
