/** From a request for media to the pipeline, and from what it says to the client. */
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import type { Context } from "hono";
import type { MediaAnswer, MediaRequest } from "../scan/request.ts";
import { clientSignal } from "./caller.ts";
import type { HttpEnv } from "./env.ts";
import { mediaHeaders } from "./media-headers.ts";
import { sendJson } from "./send-json.ts";
import { sendMedia } from "./send-media.ts";

export interface MediaPipeline {
  serve(request: MediaRequest): Promise<MediaAnswer>;
}

export type Ask = Omit<MediaRequest, "want" | "signal">;

/**
 * Answers with the media (of a HEAD request, with its headers), or with `{clean, info}`.
 * @param filename the name that the client wants the media to have
 * @throws GatewayError with the answer that the client gets instead.
 */
export async function answerWith(
  kind: "media" | "verdict",
  pipeline: MediaPipeline,
  context: Context<HttpEnv>,
  ask: Ask,
  filename?: string,
): Promise<Response> {
  const head = context.req.method === "HEAD";
  const want = kind === "verdict" ? "verdict" : head ? "head" : "bytes";
  if (ask.attachment === undefined) context.set("mxc", ask.mxc);
  const result = await pipeline.serve({ ...ask, want, signal: clientSignal(context.env.outgoing) });
  if (result.kind === "verdict") return sendJson(context, 200, { clean: result.clean, info: result.info });
  try {
    const headers = mediaHeaders(result, filename);
    if (head) return context.body(null, 200, headers);
    const { outgoing } = context.env;
    const sent = await sendMedia(outgoing, headers, result);
    context.set("status", 200);
    context.set("delivery", sent);
    return RESPONSE_ALREADY_SENT;
  } finally {
    await result.close();
  }
}
