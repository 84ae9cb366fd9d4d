/** What Hono's context carries from one layer to the next. */
import type { HttpBindings } from "@hono/node-server";
import type { ErrorForm, GatewayError } from "../errors.ts";
import type { Mxc } from "../media/source.ts";
import type { Journal } from "../scan/request.ts";
import type { Delivery } from "./send-media.ts";

export interface HttpEnv {
  Bindings: HttpBindings;
  Variables: {
    journal: Journal;
    /** How the group of routes writes its errors. */
    errorForm: ErrorForm;
    /** Set for plain media only: where an encrypted file lies is for its readers to know. */
    mxc: Mxc | undefined;
    /** What the client was told instead of an answer. */
    failure: GatewayError | undefined;
    /** Of answers that were written without Hono. */
    status: number | undefined;
    /** How the body went, for answers that the route wrote itself. */
    delivery: Delivery | undefined;
  };
}
