/** The content-scanner API: routes that answer with media or with a verdict. */
import { type Context, Hono } from "hono";
import { parseEncryptedFile } from "../crypto/attachment.ts";
import type { RequestKeys } from "../crypto/keys.ts";
import { GatewayError } from "../errors.ts";
import { parseMxc, parseMxcUrl } from "../media/mxc.ts";
import type { MediaVariant, Mxc } from "../media/source.ts";
import type { MediaRequest } from "../scan/request.ts";
import { Caller, type CallerOptions } from "./caller.ts";
import { readEncryptedFile } from "./encrypted-file.ts";
import type { HttpEnv } from "./env.ts";
import { readJsonObject } from "./json-body.ts";
import { answerWith, type MediaPipeline } from "./media-answer.ts";
import { mount } from "./route.ts";
import { sendJson } from "./send.ts";
import { thumbnailVariant } from "./thumbnail.ts";

export interface MediaRoutesOptions extends CallerOptions {
  readonly pipeline: MediaPipeline;
  readonly keys: RequestKeys;
}

type Ask = Pick<MediaRequest, "mxc" | "variant" | "attachment">;

const DOWNLOAD: MediaVariant = { kind: "download" };

/**
 * The content-scanner API, as Element and other clients shipped it:
 * https://github.com/element-hq/matrix-content-scanner-python/blob/main/docs/api.md
 *
 * `download` and `thumbnail` answer with the media itself, `scan` with `{clean, info}`; the `_encrypted` ones take `{file}` or
 * `{encrypted_body}`, and `download_encrypted` answers with the ciphertext. What clients already out there depend on, and break without:
 * - the verdict of a `scan` is a 200, whether clean or not; a download of what is not clean is a 403 (so is a forbidden type, on `scan` too);
 * - errors are `{reason, info}` with a `reason` from the closed set in `errors.ts`, and no `errcode` beside it, but where clients read that alone;
 * - request bodies are JSON whatever their Content-Type: some clients send none;
 * - `public_key` and every other answer carry CORS headers, and a preflight is answered without a token;
 * - `Authorization` may be missing: old media needs none, and the homeserver decides.
 */
export function mediaRoutes(options: MediaRoutesOptions): Hono<HttpEnv> {
  const app = new Hono<HttpEnv>();
  const caller = new Caller(options);

  const answer = (context: Context<HttpEnv>, ask: Ask, kind: "media" | "verdict"): Promise<Response> =>
    answerWith(kind, options.pipeline, context, { ...ask, ...caller.of(context) });

  mount(app, [
    {
      method: "GET",
      path: "/download/:serverName/:mediaId",
      handle: (context) => answer(context, { ...plain(context), variant: DOWNLOAD }, "media"),
    },
    {
      method: "GET",
      path: "/thumbnail/:serverName/:mediaId",
      handle: (context) => answer(context, { ...plain(context), variant: thumbnailVariant(context.req.query()) }, "media"),
    },
    {
      method: "GET",
      path: "/scan/:serverName/:mediaId",
      handle: (context) => answer(context, { ...plain(context), variant: DOWNLOAD }, "verdict"),
    },
    {
      method: "POST",
      path: "/download_encrypted",
      handle: async (context) => answer(context, await encrypted(context, options.keys), "media"),
    },
    {
      method: "POST",
      path: "/scan_encrypted",
      handle: async (context) => answer(context, await encrypted(context, options.keys), "verdict"),
    },
    { method: "GET", path: "/public_key", handle: (context) => sendJson(context, 200, { public_key: options.keys.publicKey }) },
  ]);
  return app;
}

function plain(context: Context<HttpEnv>): { mxc: Mxc; attachment: undefined } {
  const { serverName = "", mediaId = "" } = context.req.param() as Record<string, string | undefined>;
  return { mxc: parseMxc(serverName, mediaId), attachment: undefined };
}

async function encrypted(context: Context<HttpEnv>, keys: RequestKeys): Promise<Ask> {
  const body = await readJsonObject(context.env);
  return readEncryptedFile(keys, body, (file) => {
    const { url, attachment } = parseEncryptedFile(file);
    const mxc = parseMxcUrl(url);
    if (mxc === undefined) throw new GatewayError("malformed_request", { info: "file.url is not an mxc:// URI" });
    return { mxc, attachment, variant: DOWNLOAD };
  });
}
