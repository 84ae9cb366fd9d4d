/** From a request for media to the pipeline, and from what it says to the client. */
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import type { Context } from "hono";
import type { MediaAnswer, MediaRequest } from "../scan/request.ts";
import { clientSignal } from "./caller.ts";
import type { HttpEnv } from "./env.ts";
import { mediaHeaders } from "./media-headers.ts";
import { send, sendJson } from "./send.ts";
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
  const { env, req } = context;
  const head = req.method === "HEAD";
  const want = kind === "verdict" ? "verdict" : head ? "head" : "bytes";
  if (ask.attachment === undefined) env.mxc = ask.mxc;
  const result = await pipeline.serve({ ...ask, want, signal: clientSignal(env.outgoing) });
  if (result.kind === "verdict") return sendJson(context, 200, { clean: result.clean, info: result.info });
  try {
    const headers = mediaHeaders(result, filename);
    if (head) return send(context, 200, headers);
    env.status = 200;
    env.delivery = await sendMedia(env.outgoing, headers, result);
    return RESPONSE_ALREADY_SENT;
  } finally {
    await result.close();
  }
}
