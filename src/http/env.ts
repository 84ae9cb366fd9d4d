/** One request while it is dealt with: what Hono's context carries from one layer to the next. */
import type { HttpBindings } from "@hono/node-server";
import type { ErrorForm, GatewayError } from "../errors.ts";
import type { Mxc } from "../media/source.ts";
import type { Journal } from "../scan/request.ts";
import type { Delivery } from "./send-media.ts";

/** Node's own request and answer, and what its report will tell. A plain object: a map of Hono's would be asked some ten times a request. */
export interface RequestInHand extends HttpBindings {
  readonly journal: Journal;
  /** The pattern of the route; empty for a path that is none. */
  route: string;
  /** How the group of routes writes its errors. */
  errorForm: ErrorForm;
  /** Set for plain media only: where an encrypted file lies is for its readers to know. */
  mxc: Mxc | undefined;
  /** What the client was told instead of an answer. */
  failure: GatewayError | undefined;
  /** Zero until there is an answer. */
  status: number;
  /** How the body went, if it was media. */
  delivery: Delivery | undefined;
}

export interface HttpEnv {
  Bindings: RequestInHand;
}

/** A request that has just come. */
export function takeInHand({ incoming, outgoing }: HttpBindings): RequestInHand {
  return {
    incoming,
    outgoing,
    journal: {},
    route: "",
    errorForm: "scanner",
    mxc: undefined,
    failure: undefined,
    status: 0,
    delivery: undefined,
  };
}
