/** JSON request bodies: read whatever their Content-Type (shipped clients send none), and never more than a bound. */
import { GatewayError } from "../errors.ts";
import { type Exchange, JSON_PACE, announcedSize, bodyOf } from "./client-body.ts";

/** Bytes. An `encrypted_body` holds at most 16 KiB of ciphertext, in base64; the rest is room for spelling. */
export const MAX_JSON = 64 * 1024;

/**
 * The object in the body.
 * @throws GatewayError `malformed_request` when it is not one in JSON and UTF-8, `request_too_large` past 64 KiB; as `bodyOf`.
 */
export async function readJsonObject(exchange: Exchange): Promise<Readonly<Record<string, unknown>>> {
  if ((announcedSize(exchange.incoming) ?? 0) > MAX_JSON) throw new GatewayError("request_too_large");
  return parseJsonObject(await gather(bodyOf(exchange, JSON_PACE)));
}

/** All of it. @throws GatewayError `request_too_large` past 64 KiB; whatever the source throws. */
export async function gather(source: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of source) {
    size += chunk.length;
    if (size > MAX_JSON) throw new GatewayError("request_too_large");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

/** Holds nothing from one body to the next. */
const UTF8 = new TextDecoder("utf-8", { fatal: true });

/** @throws GatewayError `malformed_request` when it is no object in JSON and UTF-8. */
export function parseJsonObject(bytes: Buffer): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(UTF8.decode(bytes));
  } catch {
    // Without the cause: its text quotes the body, and with it keys.
    throw new GatewayError("malformed_request", { info: "The request body is not JSON" });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new GatewayError("malformed_request", { info: "The request body is not a JSON object" });
  }
  return value as Record<string, unknown>;
}
