import { limitsFrom } from "../codec/limits.ts";
import { type Verdict, judge } from "../verdict.ts";
import { type Answer, type ExchangeRequest, type ExchangeRules, StaleConnection, exchange } from "./exchange.ts";
import { OptionsCache } from "./options-cache.ts";
import { ConnectionPool, type Lease } from "./pool.ts";
import { SENT_HTTP_STATUS, optionsRequest, respmodRequest } from "./respmod.ts";
import { readIsTag, readServiceInfo } from "./service-info.ts";
import { type Target, parseTarget } from "./target.ts";
import type { IcapScanRequest, IcapScanResult, IcapServiceOptions, IcapTimeouts, PoolStats, ServiceInfo } from "./types.ts";

const DEFAULT_TIMEOUTS: IcapTimeouts = { connect: 5_000, write: 30_000, answer: 120_000, idle: 30_000 };
const DEFAULT_CONNECTIONS = 16;
const DEFAULT_RESERVED = 1;
/** What a Node.js timer can hold. */
const MAX_TIMEOUT = 2 ** 31 - 1;

/**
 * One ICAP service that scans by RESPMOD (RFC 3507). It keeps connections, asks OPTIONS when it has to, and gives a verdict that is
 * clean only where the answer proves it. Nothing is tried again but a kept connection that the server closed as it was written to.
 */
export class IcapService implements AsyncDisposable {
  readonly #target: Target;
  readonly #pool: ConnectionPool;
  readonly #rules: ExchangeRules;
  readonly #previews: boolean;
  readonly #options: OptionsCache;

  /** @throws TypeError for an option that is out of its range, or another URL than `icap://host[:port]/path?query`. */
  constructor(options: IcapServiceOptions) {
    const timeouts = { ...DEFAULT_TIMEOUTS, ...options.timeouts };
    for (const [name, ms] of Object.entries(timeouts)) checkInteger(`timeouts.${name}`, ms, 1, MAX_TIMEOUT);
    const { maxConnections = DEFAULT_CONNECTIONS, reservedConnections = DEFAULT_RESERVED } = options;
    checkInteger("maxConnections", maxConnections, 1, 65_535);
    checkInteger("reservedConnections", reservedConnections, 0, 65_535);
    this.#target = parseTarget(options.url);
    this.#rules = { timeouts, limits: limitsFrom(options.limits) };
    this.#previews = options.preview === "required";
    this.#pool = new ConnectionPool(this.#target, {
      maxConnections,
      reservedConnections,
      connectTimeout: timeouts.connect,
      idleTimeout: timeouts.idle,
    });
    this.#options = new OptionsCache((signal) => this.#fetchOptions(signal), options.clock ?? (() => performance.now()));
  }

  /** The request URI, with its port. */
  get url(): string {
    return this.#target.uri;
  }

  /** Connections that ordinary scans may use at once, as far as known. */
  get capacity(): number {
    return this.#pool.capacity;
  }

  /**
   * What the service says of itself, from memory while that holds (Options-TTL) and `fresh` is not asked for.
   * @throws IcapError but `body_size`; the signal's reason.
   */
  async options(signal: AbortSignal, { fresh = false }: { readonly fresh?: boolean } = {}): Promise<ServiceInfo> {
    try {
      this.#pool.closing.throwIfAborted();
      return await this.#options.get(signal, fresh);
    } catch (error) {
      throw this.#closedOr(error, signal);
    }
  }

  /**
   * Has the body scanned. Waits in line for a connection as long as `request.signal` allows.
   * @throws IcapError when no answer can be had or believed; whatever the body throws; the signal's reason; TypeError for a request that
   *   can't be sent. An answer that says it failed is no exception but a verdict, `error`.
   */
  async scan(request: IcapScanRequest): Promise<IcapScanResult> {
    try {
      const info = await this.options(request.signal);
      const message = respmodRequest(this.#target, request, this.#previews ? info.preview : undefined);
      const answer = await this.#exchange(message, request.priority ?? false, request.signal);
      const isTag = readIsTag(answer.headers);
      if (isTag !== undefined) this.#options.sawTag(isTag);
      return { verdict: verdictOf(answer), isTag: isTag ?? info.isTag, icapStatus: answer.status };
    } catch (error) {
      throw this.#closedOr(error, request.signal);
    }
  }

  stats(): PoolStats {
    return this.#pool.stats;
  }

  /** Ends what is under way with IcapError `closed`. Resolves when every socket is closed. Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.close();
  }

  async #fetchOptions(signal: AbortSignal): Promise<ServiceInfo> {
    // In the background nobody else ends it, and a server may send a byte at a time.
    const { connect, answer } = this.#rules.timeouts;
    const limited = AbortSignal.any([signal, AbortSignal.timeout(Math.min(MAX_TIMEOUT, connect + 2 * answer))]);
    const info = readServiceInfo(await this.#exchange(optionsRequest(this.#target), true, limited));
    this.#pool.allow(info.maxConnections);
    return info;
  }

  async #exchange(request: ExchangeRequest, priority: boolean, signal: AbortSignal): Promise<Answer> {
    const lease = await this.#pool.lease(priority, signal);
    try {
      return await this.#try(lease, request, false, signal);
    } catch (error) {
      if (!(error instanceof StaleConnection)) throw error;
      return await this.#try(lease, request, true, signal);
    } finally {
      lease.release();
    }
  }

  async #try(lease: Lease, request: ExchangeRequest, fresh: boolean, signal: AbortSignal): Promise<Answer> {
    const connection = await lease.connection({ fresh, signal });
    const answer = await exchange(connection, request, this.#rules, signal);
    if (answer.reusable) lease.keep(connection);
    return answer;
  }

  /** Once the service is closed, that is why anything fails, except for what the caller itself ended. */
  #closedOr(error: unknown, signal: AbortSignal): unknown {
    return this.#pool.closing.aborted && !signal.aborted ? this.#pool.closing.reason : error;
  }
}

function verdictOf(answer: Answer): Verdict {
  return judge({
    icapStatus: answer.status,
    icapHeaders: answer.headers,
    http: answer.http,
    body: answer.body,
    sent: answer.sent,
    sentHttpStatus: SENT_HTTP_STATUS,
  });
}

function checkInteger(name: string, value: number, min: number, max: number): void {
  if (!Number.isSafeInteger(value) || value < min || value > max) throw new TypeError(`${name} must be an integer from ${min} to ${max}`);
}
