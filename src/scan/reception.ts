/** How clients come in that bring media: known to the homeserver, within their share, and with room for what they bring. */
import { GatewayError } from "../errors.ts";
import type { Credentials, Identifier } from "../media/source.ts";
import type { SpoolBudget } from "../media/spool-budget.ts";
import type { Admission, Client } from "./admission.ts";
import { Deadline } from "./deadline.ts";
import { identify } from "./identify.ts";
import type { Journal } from "./request.ts";
import type { ScanContext, Scanner } from "./scanner.ts";

/** Who brings something. */
export interface Visitor {
  readonly credentials: Credentials;
  readonly client: Client;
  /** The client's address as seen through trusted proxies; empty when it can't be told. */
  readonly address: string;
  /** Bytes of what comes; undefined when they are not announced. */
  readonly size: number | undefined;
  /** Aborts when the client has gone. */
  readonly signal: AbortSignal;
  /** Filled in on the way, for the log. */
  readonly journal: Journal;
}

export interface ReceptionOptions {
  readonly identifier: Identifier;
  readonly admission: Admission;
  /**
   * Of the spool, what all that clients bring may take together. The rest is for what comes from the homeserver: they may take their time, and keep
   * what they were given for as long.
   */
  readonly share: SpoolBudget;
  /** Bytes. */
  readonly maxFileSize: number;
  /** Milliseconds that somebody waits until the first byte is read. */
  readonly wait: number;
}

export interface HouseRules {
  /** Nobody gets in whose token the homeserver does not know. */
  readonly requiresToken: boolean;
  /** Who may be told of whom it is. */
  readonly scanners: readonly Scanner[];
  /** Bytes that this user may bring at most, beside `maxFileSize`. Never rejects. */
  readonly limit?: (user: string) => Promise<number>;
}

export interface Visit {
  readonly context: ScanContext | undefined;
  /** Bytes that may come at most. */
  readonly limit: number;
  /** Ends when the client has gone or everything ends; for as long as it is not extended, not by time. */
  readonly time: Deadline;
  /** Ends when everything ends. */
  readonly stop: AbortSignal;
}

export class Reception {
  readonly #options: ReceptionOptions;
  readonly #running = new Set<Promise<unknown>>();
  readonly #stop = new AbortController();
  #closing = false;

  constructor(options: ReceptionOptions) {
    this.#options = options;
  }

  /**
   * Lets the visitor in, and has the work done. Nothing of the body is to be read before that.
   * @throws GatewayError `missing_token`, `unknown_token`, `rate_limited`, `too_large`, `no_room`, `homeserver_failed`, `shutting_down`; whatever the work throws;
   *   the visitor's signal's reason.
   */
  async receive<T>(visitor: Visitor, rules: HouseRules, work: (visit: Visit) => Promise<T>): Promise<T> {
    if (this.#closing) throw new GatewayError("shutting_down");
    const visit = this.#receive(visitor, rules, work);
    this.#running.add(visit);
    try {
      return await visit;
    } finally {
      this.#running.delete(visit);
    }
  }

  /** Nobody comes in any more; who is in may finish until the signal aborts, and is then sent away. Resolves when nobody is in. */
  async shutdown(signal: AbortSignal): Promise<void> {
    this.#closing = true;
    const end = (): void => this.#stop.abort(new GatewayError("shutting_down"));
    if (signal.aborted) end();
    signal.addEventListener("abort", end, { once: true });
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
    signal.removeEventListener("abort", end);
  }

  async #receive<T>(visitor: Visitor, rules: HouseRules, work: (visit: Visit) => Promise<T>): Promise<T> {
    const { admission, share, maxFileSize, wait } = this.#options;
    const { client, size } = visitor;
    const stop = this.#stop.signal;
    // Before the homeserver is asked, which nobody may have asked without limit.
    using _entry = admission.enter(client);
    using time = new Deadline(wait, () => new GatewayError("no_room", { detail: "waited too long for its turn" }), visitor.signal, stop);
    const { signal } = time;
    const user = await this.#userOf(visitor, rules, signal);
    using _share = user === undefined ? undefined : admission.enterAs(user);
    const context = await this.#identify(visitor, user, rules, signal);
    const limit = Math.min(maxFileSize, user === undefined ? Infinity : ((await rules.limit?.(user)) ?? Infinity));
    signal.throwIfAborted();
    if (size !== undefined && size > limit) throw new GatewayError("too_large", { detail: `${size} bytes are announced` });
    using _slot = await admission.uploads.acquire(signal);
    const room = await share.reserve(size ?? limit, signal);
    try {
      time.lift();
      return await work({ context, limit, time, stop });
    } finally {
      room.shrinkTo(0, 0);
    }
  }

  async #userOf({ credentials, client }: Visitor, { requiresToken }: HouseRules, signal: AbortSignal): Promise<string | undefined> {
    if (!requiresToken) return undefined;
    const user = await this.#options.identifier.whoami(credentials, signal);
    if (user === undefined) throw new GatewayError("missing_token");
    this.#options.admission.proved(client);
    return user;
  }

  #identify(visitor: Visitor, user: string | undefined, { scanners }: HouseRules, signal: AbortSignal): Promise<ScanContext | undefined> {
    const { identifier } = this.#options;
    // The homeserver is not asked a second time.
    const known: Identifier =
      user === undefined ? identifier : { whoami: () => Promise.resolve(user), address: () => identifier.address() };
    return identify(visitor, scanners, known, signal);
  }
}
