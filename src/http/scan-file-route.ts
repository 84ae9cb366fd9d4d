/** A file that a client has checked before it uploads it, with the content-scanner API's answers. */
import { type Context, Hono } from "hono";
import { type Attachment, parseEncryptedFile } from "../crypto/attachment.ts";
import type { RequestKeys } from "../crypto/keys.ts";
import { GatewayError } from "../errors.ts";
import type { FileCheckRequest } from "../scan/file-check.ts";
import type { VerdictAnswer } from "../scan/request.ts";
import { Caller, type CallerOptions, clientSignal } from "./caller.ts";
import { MEDIA_PACE, announcedSize, bodyOf } from "./client-body.ts";
import { readEncryptedFile } from "./encrypted-file.ts";
import type { HttpEnv } from "./env.ts";
import { parseJsonObject } from "./json-body.ts";
import { mount } from "./route.ts";
import { boundsOfFile, readScanForm } from "./scan-form.ts";
import { sendJson } from "./send.ts";

export interface FileChecker {
  check(request: FileCheckRequest): Promise<VerdictAnswer>;
}

export interface ScanFileOptions extends CallerOptions {
  readonly fileChecks: FileChecker;
  readonly keys: RequestKeys;
}

/**
 * `POST scan_file`: a form with the part `file`, and with the part `body` where the file is encrypted: the JSON of the `_encrypted` routes, whose `url` may
 * be missing. Answered like `scan`.
 */
export function scanFileRoute({ fileChecks, keys, ...options }: ScanFileOptions): Hono<HttpEnv> {
  const app = new Hono<HttpEnv>();
  const caller = new Caller(options);

  const scanFile = async (context: Context<HttpEnv>): Promise<Response> => {
    const { env, req } = context;
    const { clean, info } = await fileChecks.check({
      ...caller.of(context),
      bounds: boundsOfFile(announcedSize(env.incoming)),
      signal: clientSignal(env.outgoing),
      read: async (write, signal, timed) => {
        const source = (failed: AbortSignal): AsyncIterable<Buffer> => timed(bodyOf(env, MEDIA_PACE, AbortSignal.any([signal, failed])));
        const body = await readScanForm(req.header("content-type"), source, write, signal);
        return body === undefined ? undefined : readEncryptedFile(keys, parseJsonObject(body), attachmentOf);
      },
    });
    return sendJson(context, 200, { clean, info });
  };

  mount(app, [{ method: "POST", path: "/scan_file", handle: scanFile }]);
  return app;
}

/** The file is here, so it needs not say where it lies. */
function attachmentOf(file: unknown): Attachment {
  if (typeof file !== "object" || file === null) throw new GatewayError("malformed_request", { detail: "file is missing" });
  return parseEncryptedFile({ url: "", ...file }).attachment;
}
