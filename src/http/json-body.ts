/** JSON request bodies: read whatever their Content-Type (shipped clients send none), and never more than a bound. */
import type { IncomingMessage } from "node:http";
import { GatewayError } from "../errors.ts";

/** An `encrypted_body` holds at most 16 KiB of ciphertext, in base64; the rest is room for spelling. */
const MAX_BODY = 64 * 1024;

/**
 * The object in the body.
 * @throws GatewayError `malformed_request` when it is not one in JSON and UTF-8, `request_too_large` past 64 KiB.
 */
export async function readJsonObject(incoming: IncomingMessage): Promise<Readonly<Record<string, unknown>>> {
  const bytes = await readBounded(incoming);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    // Without the cause: its text quotes the body, and with it keys.
    throw new GatewayError("malformed_request", { info: "The request body is not JSON" });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new GatewayError("malformed_request", { info: "The request body is not a JSON object" });
  }
  return value as Record<string, unknown>;
}

async function readBounded(incoming: IncomingMessage): Promise<Buffer> {
  if (Number(incoming.headers["content-length"] ?? 0) > MAX_BODY) throw new GatewayError("request_too_large");
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    // The stream is left alone when the loop ends early: the answer still has to go out on its socket.
    for await (const chunk of incoming.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > MAX_BODY) throw new GatewayError("request_too_large");
      chunks.push(chunk);
    }
  } catch (error) {
    if (error instanceof GatewayError) throw error;
    throw new GatewayError("malformed_request", { info: "The request body was cut short", cause: error });
  }
  return Buffer.concat(chunks, size);
}
