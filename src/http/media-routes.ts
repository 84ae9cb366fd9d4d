/** The content-scanner API: routes that answer with media or with a verdict. */
import { createHmac, randomBytes } from "node:crypto";
import type { ServerResponse } from "node:http";
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import { type Context, Hono } from "hono";
import { type Attachment, parseEncryptedFile } from "../crypto/attachment.ts";
import type { RequestKeys } from "../crypto/keys.ts";
import { decryptRequestBody } from "../crypto/request-body.ts";
import { GatewayError } from "../errors.ts";
import { parseMxc, parseMxcUrl } from "../media/mxc.ts";
import type { MediaVariant, Mxc } from "../media/source.ts";
import type { MediaAnswer, MediaRequest } from "../scan/request.ts";
import { type ClientAddresses, networkOf } from "./client-address.ts";
import { COMMON_HEADERS } from "./common-headers.ts";
import type { HttpEnv } from "./env.ts";
import { readJsonObject } from "./json-body.ts";
import { mediaHeaders } from "./media-headers.ts";
import { sendMedia } from "./send-media.ts";
import { thumbnailVariant } from "./thumbnail.ts";

export interface MediaRoutesOptions {
  readonly pipeline: { serve(request: MediaRequest): Promise<MediaAnswer> };
  readonly keys: RequestKeys;
  readonly addresses: ClientAddresses;
  /** Lower-case names of the client's headers that go on to the homeserver. */
  readonly headersToForward: readonly string[];
}

type Ask = Pick<MediaRequest, "mxc" | "variant" | "attachment">;

const DOWNLOAD: MediaVariant = { kind: "download" };

/** One path of the API; any method but its own, HEAD (of GET) and OPTIONS is answered 405. */
interface Route {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly handle: (context: Context<HttpEnv>) => Response | Promise<Response>;
}

const ALLOW = { GET: "GET, HEAD, OPTIONS", POST: "POST, OPTIONS" } as const;

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

  const answer = async (context: Context<HttpEnv>, ask: Ask, kind: "media" | "verdict"): Promise<Response> => {
    const head = context.req.method === "HEAD";
    const want = kind === "verdict" ? "verdict" : head ? "head" : "bytes";
    const { journal, ...who } = caller.of(context);
    if (ask.attachment === undefined) context.set("mxc", ask.mxc);
    const result = await options.pipeline.serve({ ...ask, ...who, journal, want, signal: clientSignal(context.env.outgoing) });
    if (result.kind === "verdict") return context.json({ clean: result.clean, info: result.info });
    try {
      const headers = mediaHeaders(result);
      if (head) return context.body(null, 200, headers);
      const { outgoing } = context.env;
      const sent = await sendMedia(outgoing, { ...COMMON_HEADERS, ...headers }, result);
      context.set("delivery", sent);
      return RESPONSE_ALREADY_SENT;
    } finally {
      await result.close();
    }
  };

  const routes: readonly Route[] = [
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
    { method: "GET", path: "/public_key", handle: (context) => context.json({ public_key: options.keys.publicKey }) },
  ];
  for (const { method, path, handle } of routes) {
    app.on(method, path, handle);
    app.all(path, () => {
      throw new GatewayError("method_not_allowed", { allow: ALLOW[method] });
    });
  }
  return app;
}

/** Aborts when the connection ends before the answer does. */
function clientSignal(outgoing: ServerResponse): AbortSignal {
  const controller = new AbortController();
  const end = (): void => {
    if (!outgoing.writableFinished) controller.abort(new GatewayError("client_gone"));
  };
  // It may have gone while its request was read.
  if (outgoing.destroyed || outgoing.closed) end();
  else outgoing.once("close", end);
  return controller.signal;
}

function plain(context: Context<HttpEnv>): { mxc: Mxc; attachment: undefined } {
  const { serverName = "", mediaId = "" } = context.req.param() as Record<string, string | undefined>;
  return { mxc: parseMxc(serverName, mediaId), attachment: undefined };
}

async function encrypted(context: Context<HttpEnv>, keys: RequestKeys): Promise<Ask> {
  const body = await readJsonObject(context.env.incoming);
  if (body["encrypted_body"] === undefined) return { ...encryptedFile(body), variant: DOWNLOAD };
  const inner = decryptRequestBody(keys, body["encrypted_body"]);
  try {
    return { ...encryptedFile(inner), variant: DOWNLOAD };
  } catch (error) {
    // One answer for all that can be wrong with it: a second one would make an oracle.
    throw new GatewayError("bad_decryption", { cause: error });
  }
}

function encryptedFile(body: unknown): { mxc: Mxc; attachment: Attachment } {
  const { url, attachment } = parseEncryptedFile((body as Record<string, unknown>)["file"]);
  const mxc = parseMxcUrl(url);
  if (mxc === undefined) throw new GatewayError("malformed_request", { info: "file.url is not an mxc:// URI" });
  return { mxc, attachment };
}

/** RFC 6750, section 2.1; schemes are case-insensitive (RFC 9110, section 11.1). */
const BEARER = /^bearer\s+(\S+)$/i;

/** Who asks, and what of the request the homeserver needs to see. */
class Caller {
  readonly #options: MediaRoutesOptions;
  /** Clients are told apart, for fairness, without their tokens being kept. */
  readonly #secret = randomBytes(32);

  constructor(options: MediaRoutesOptions) {
    this.#options = options;
  }

  of(context: Context<HttpEnv>): Pick<MediaRequest, "credentials" | "client" | "address" | "journal"> {
    const authorization = context.req.header("authorization");
    const forwarded: Record<string, string> = {};
    for (const name of this.#options.headersToForward) {
      const value = context.req.header(name);
      if (value !== undefined) forwarded[name] = value;
    }
    const { remoteAddress } = context.env.incoming.socket;
    const address = this.#options.addresses.resolve(remoteAddress, context.req.header("x-forwarded-for"));
    return {
      credentials: { authorization, forwarded },
      address,
      client: { address: networkOf(address), token: this.#tokenDigest(authorization) },
      journal: context.get("journal"),
    };
  }

  /** One digest for one token, however the header is written. What is no bearer token is none, so nobody is many clients by inventing schemes. */
  #tokenDigest(authorization: string | undefined): string | undefined {
    const token = BEARER.exec(authorization?.trim() ?? "")?.[1];
    return token === undefined ? undefined : createHmac("sha256", this.#secret).update(token).digest("base64");
  }
}
