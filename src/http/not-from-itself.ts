import { randomBytes } from "node:crypto";
import type { MiddlewareHandler } from "hono";
import { GatewayError } from "../errors.ts";
import type { HttpEnv } from "./env.ts";

/** What a gateway calls itself in Via (RFC 9110, section 7.6.3), however many processes it has; no other one is called that. */
export function newPseudonym(): string {
  return `matrix-icap-gateway-${randomBytes(8).toString("hex")}`;
}

/**
 * Refuses what this gateway itself asks, sent back here by a reverse proxy that it takes for the homeserver.
 * @param pseudonym what it calls itself in Via.
 */
export function notFromItself(pseudonym: string): MiddlewareHandler<HttpEnv> {
  return async (context, next) => {
    if (context.req.header("via")?.includes(pseudonym) === true) {
      const detail = "download.base_homeserver_url leads back here: it must be the homeserver's own address, not the reverse proxy's";
      throw new GatewayError("homeserver_failed", { detail });
    }
    await next();
  };
}
