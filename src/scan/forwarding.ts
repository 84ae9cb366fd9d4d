/** What clients ask the homeserver beside media: passed on within the same limits for each client and for all together. */
import { GatewayError } from "../errors.ts";
import type { Credentials, HomeserverAnswer, ForwardedRequest, Forwarder } from "../media/source.ts";
import type { Admission, Client } from "./admission.ts";
import { Deadline } from "./deadline.ts";

export interface ForwardingOptions {
  readonly forwarder: Forwarder;
  readonly admission: Admission;
  /** Milliseconds until the answer is there. */
  readonly timeout: number;
}

/** Who asks. */
export interface ForwardingClient {
  readonly credentials: Credentials;
  readonly client: Client;
  /** Aborts when the client has gone. */
  readonly signal: AbortSignal;
}

export class Forwarding {
  readonly #options: ForwardingOptions;

  constructor(options: ForwardingOptions) {
    this.#options = options;
  }

  /** @throws GatewayError as `Forwarder.forward`, `rate_limited`; the client signal's reason. */
  async ask(request: ForwardedRequest, { credentials, client, signal }: ForwardingClient): Promise<HomeserverAnswer> {
    const { admission, forwarder, timeout } = this.#options;
    using _entry = admission.enter(client);
    using time = new Deadline(
      timeout,
      () => new GatewayError("homeserver_failed", { detail: "the homeserver took too long over its answer" }),
      signal,
    );
    using _slot = await admission.forwards.acquire(time.signal);
    const answer = await forwarder.forward(request, credentials, time.signal);
    if (answer.status === 200 && request.api === "client/v1/media") admission.proved(client);
    return answer;
  }
}
