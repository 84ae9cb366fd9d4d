/** Who asks, and what of the request the homeserver needs to see. */
import { hash, randomBytes } from "node:crypto";
import type { ServerResponse } from "node:http";
import type { Context } from "hono";
import { GatewayError } from "../errors.ts";
import type { MediaRequest } from "../scan/request.ts";
import { type ClientAddresses, networkOf } from "./client-address.ts";
import type { HttpEnv } from "./env.ts";

export interface CallerOptions {
  readonly addresses: ClientAddresses;
  /** Lower-case names of the client's headers that go on to the homeserver. */
  readonly headersToForward: readonly string[];
}

/** RFC 6750, section 2.1; schemes are case-insensitive (RFC 9110, section 11.1). */
const BEARER = /^bearer\s+(\S+)$/i;

export class Caller {
  readonly #options: CallerOptions;
  /**
   * Clients are told apart, for fairness, without their tokens being kept. What is kept is SHA-256 of this and the token: without this, nobody can try tokens
   * on it. That it could be lengthened, which an HMAC would prevent, harms nobody, for it never leaves the process.
   */
  readonly #secret = randomBytes(32).toString("hex");

  constructor(options: CallerOptions) {
    this.#options = options;
  }

  of(context: Context<HttpEnv>): Pick<MediaRequest, "credentials" | "client" | "address" | "journal"> {
    return this.#with(context, context.req.header("authorization"));
  }

  /**
   * As `of`, for the client-server API: there the token may also be the query's `access_token`, as old clients have it. It goes on in the header
   * alone, which wins where both are there. https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens
   */
  ofClientServer(context: Context<HttpEnv>): ReturnType<Caller["of"]> {
    const token = context.req.query("access_token");
    const inQuery = token !== undefined && /^\S+$/.test(token) ? `Bearer ${token}` : undefined;
    return this.#with(context, context.req.header("authorization") ?? inQuery);
  }

  #with(context: Context<HttpEnv>, authorization: string | undefined): ReturnType<Caller["of"]> {
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
      journal: context.env.journal,
    };
  }

  /** One digest for one token, however the header is written. What is no bearer token is none, so nobody is many clients by inventing schemes. */
  #tokenDigest(authorization: string | undefined): string | undefined {
    const token = BEARER.exec(authorization?.trim() ?? "")?.[1];
    return token === undefined ? undefined : hash("sha256", this.#secret + token);
  }
}

/** Aborts when the connection ends before the answer does. */
export function clientSignal(outgoing: ServerResponse): AbortSignal {
  const controller = new AbortController();
  const end = (): void => {
    if (!outgoing.writableFinished) controller.abort(new GatewayError("client_gone"));
  };
  // It may have gone while its request was read.
  if (outgoing.destroyed || outgoing.closed) end();
  else outgoing.on("close", end);
  return controller.signal;
}
