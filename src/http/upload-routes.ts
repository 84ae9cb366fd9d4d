/** Uploads, as clients make them to their homeserver: https://spec.matrix.org/v1.19/client-server-api/#uploads */
import { type Context, Hono } from "hono";
import { GatewayError } from "../errors.ts";
import type { UploadTarget } from "../media/media-store.ts";
import { parseMxc } from "../media/mxc.ts";
import type { HomeserverAnswer } from "../media/source.ts";
import type { UploadRequest } from "../scan/uploads.ts";
import { Caller, type CallerOptions, clientSignal } from "./caller.ts";
import { MEDIA_PACE, announcedSize, bodyOf } from "./client-body.ts";
import type { HttpEnv } from "./env.ts";
import { inStandardForm } from "./errors.ts";
import { safeType } from "./media-headers.ts";
import { notFromItself } from "./not-from-itself.ts";
import { passedOn } from "./passed-on.ts";
import { mount } from "./route.ts";

export interface Uploader {
  upload(request: UploadRequest): Promise<HomeserverAnswer>;
  create(request: Pick<UploadRequest, "credentials" | "client" | "signal">): Promise<HomeserverAnswer>;
}

export interface UploadRoutesOptions extends CallerOptions {
  readonly uploads: Uploader;
  /** What this gateway calls itself to the homeserver. */
  readonly pseudonym: string;
}

/** Characters; more than any file system takes. */
const MAX_FILE_NAME = 1024;

const APIS = ["v3", "v1", "r0"] as const;

/** Below `/_matrix/media`. What the homeserver answers is the answer; all that fails here is in the standard form. */
export function uploadRoutes({ uploads, pseudonym, ...options }: UploadRoutesOptions): Hono<HttpEnv> {
  const app = new Hono<HttpEnv>();
  const caller = new Caller(options);
  app.use(inStandardForm, notFromItself(pseudonym));

  const upload = async (context: Context<HttpEnv>, target: UploadTarget): Promise<Response> => {
    const { env, req } = context;
    const request = {
      ...caller.ofClientServer(context),
      target,
      contentType: safeType(req.header("content-type")).header,
      fileName: fileNameOf(req.query("filename")),
      size: announcedSize(env.incoming),
      open: (signal: AbortSignal) => bodyOf(env, MEDIA_PACE, signal),
      signal: clientSignal(env.outgoing),
    };
    return passedOn(context, await uploads.upload(request));
  };

  mount(app, [
    ...APIS.map(
      (api) =>
        ({
          method: "POST",
          path: `/${api}/upload`,
          handle: (context: Context<HttpEnv>) => upload(context, { kind: "new", api }),
        }) as const,
    ),
    {
      method: "PUT",
      path: "/v3/upload/:serverName/:mediaId",
      handle: (context) => {
        const { serverName = "", mediaId = "" } = context.req.param() as Record<string, string | undefined>;
        return upload(context, { kind: "created", mxc: parseMxc(serverName, mediaId) });
      },
    },
    {
      method: "POST",
      path: "/v1/create",
      handle: async (context) => {
        const signal = clientSignal(context.env.outgoing);
        return passedOn(context, await uploads.create({ ...caller.ofClientServer(context), signal }));
      },
    },
  ]);
  return app;
}

function fileNameOf(name: string | undefined): string | undefined {
  if (name === undefined || name === "") return undefined;
  if (name.length > MAX_FILE_NAME) throw new GatewayError("bad_parameter", { info: `filename has more than ${MAX_FILE_NAME} characters` });
  return name.toWellFormed();
}
