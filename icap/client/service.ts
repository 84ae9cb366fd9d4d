import { IcapError } from "../errors.ts";
import { type Profile, readingOf } from "../profiles.ts";
import { type AnswerFacts, type HeadFacts, type Reading, type Verdict, conclude, readHeads, satisfaction } from "../verdict.ts";
import type { Answer } from "./answer.ts";
import { limitOf } from "./deadline.ts";
import { beginsWith } from "./echo.ts";
import { type ExchangeRequest, StaleConnection, exchange } from "./exchange.ts";
import { Messages, type ScanMessage, SENT_HTTP_STATUS, isRequestFor } from "./messages.ts";
import { OptionsCache } from "./options-cache.ts";
import { ConnectionPool, type ConnectionRequest, type Lease } from "./pool.ts";
import { contentTypeOf, replacementIn } from "./replacement.ts";
import { readIsTag, readServiceInfo } from "./service-info.ts";
import { type Settings, settingsFrom } from "./settings.ts";
import { transferOf } from "./transfer-lists.ts";
import type { IcapScanRequest, IcapScanResult, IcapServiceOptions, PoolStats, ServiceInfo } from "./types.ts";

/**
 * One ICAP service that scans by RESPMOD or REQMOD (RFC 3507). It keeps connections, asks OPTIONS when it has to, and gives a verdict that
 * is clean only where the answer proves it, or where it was told to trust the service without. Nothing is tried again but a kept connection
 * that was over before it was asked anything.
 *
 * A process should have one for each service: its connections are counted here.
 */
export class IcapService implements AsyncDisposable {
  /** What is known of the vendor's server. */
  readonly profile: Profile;
  readonly #settings: Settings;
  readonly #reading: Reading;
  readonly #messages: Messages;
  readonly #pool: ConnectionPool;
  readonly #options: OptionsCache;

  /** @throws TypeError for an option that is out of its range or contradicts the profile, or for another URL than `icap://` or `icaps://`. */
  constructor(options: IcapServiceOptions) {
    const settings = settingsFrom(options);
    this.profile = settings.profile;
    this.#settings = settings;
    this.#reading = readingOf(settings.profile, settings.blockedBy);
    this.#messages = new Messages(settings.target, settings.method, settings.credentials, settings.fields);
    const clock = options.clock ?? (() => performance.now());
    this.#pool = new ConnectionPool(settings.target, settings.pool, { clock, unsolicited: options.onUnsolicited });
    this.#options = new OptionsCache((signal) => this.#fetchOptions(signal), clock);
  }

  /** The request URI, with its port. */
  get url(): string {
    return this.#settings.target.uri;
  }

  /** Connections that ordinary scans may use at once, as far as known. */
  get capacity(): number {
    return this.#pool.capacity;
  }

  /**
   * What the service says of itself, from memory while that holds (Options-TTL) and `fresh` is not asked for.
   * @throws IcapError but `body_size` and `busy`; the signal's reason.
   */
  async options(signal: AbortSignal, { fresh = false }: { readonly fresh?: boolean } = {}): Promise<ServiceInfo> {
    try {
      this.#pool.closing.throwIfAborted();
      return await this.#options.get(signal, fresh);
    } catch (error) {
      throw this.#reasonFor(error, signal);
    }
  }

  /**
   * Has the body scanned. Waits in line for a connection as long as `request.signal` allows.
   * @throws IcapError when no answer can be had or believed; whatever the body or `request.returned` throws; the signal's reason; TypeError for
   *   a request that can't be sent. An answer that says it failed is no exception but a verdict, `error`.
   */
  async scan(request: IcapScanRequest): Promise<IcapScanResult> {
    try {
      this.#pool.closing.throwIfAborted();
      const info = await this.#options.get(request.signal);
      const transfer = this.#settings.trustsLists ? transferOf(request.fileName, info.transfer) : "preview";
      const message = this.#messages.scan(request, transfer === "preview" && this.#settings.preview !== "never" ? info.preview : undefined);
      if (transfer === "ignore") {
        return { verdict: { outcome: "clean", how: "ignored" }, isTag: info.isTag, icapStatus: undefined, replacement: undefined };
      }
      const { total } = this.#settings.timeouts;
      const answer = await this.#exchange(message, request.priority ?? false, total, request.signal);
      const { isTag, broken } = this.#tagOf(answer);
      if (isTag !== undefined) this.#options.sawTag(isTag);
      const told = { isTag: isTag ?? info.isTag, icapStatus: answer.status };
      // What the heads say against the file stands, whatever becomes of the rest.
      const facts = this.#headFacts(message, answer);
      const heads = readHeads(facts, this.#reading);
      if (heads.verdict?.outcome === "infected" || heads.verdict?.outcome === "unscannable") {
        const verdict = this.#scrubbed(heads.verdict);
        return { ...told, verdict, replacement: undefined, ...this.#page(answer, verdict) };
      }
      if (broken !== undefined) throw broken;
      const body = await bodyBeside(answer, request);
      const whole = { ...facts, body, sent: answer.sent, trustsPreview: this.#settings.preview === "trusted" };
      const verdict = this.#scrubbed(conclude(whole, this.#reading, heads));
      const replacement = verdict.outcome === "modified" ? await this.#replacement(answer, verdict, request) : undefined;
      return { ...told, verdict, replacement };
    } catch (error) {
      throw this.#reasonFor(error, request.signal);
    }
  }

  /** A text without the credentials, should the server have repeated them in it. */
  scrub(text: string): string {
    return this.#settings.credentials?.scrub(text) ?? text;
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
    const { connect, answer, total } = this.#settings.timeouts;
    const limit = Math.min(connect + 2 * answer, total);
    const said = await this.#exchange(this.#messages.options(), true, limit, signal);
    if (said.broken !== undefined) throw said.broken;
    const info = readServiceInfo(said, this.#settings.method);
    this.#pool.allow(info.maxConnections);
    const { credentials } = this.#settings;
    if (credentials === undefined) return info;
    const { isTag, service } = info;
    return { ...info, isTag: isTag && credentials.disguise(isTag), service: service && credentials.scrub(service) };
  }

  /** `milliseconds`: from the lease of a connection on. */
  async #exchange(request: ExchangeRequest, priority: boolean, milliseconds: number, signal: AbortSignal): Promise<Answer> {
    const lease = await this.#pool.lease(priority, signal);
    const limit = limitOf(milliseconds);
    try {
      try {
        return await this.#try(request, lease, { fresh: false, signal, limit });
      } catch (error) {
        if (!(error instanceof StaleConnection)) throw error;
        return await this.#try(request, lease, { fresh: true, signal, limit });
      }
    } finally {
      lease.release();
    }
  }

  async #try(request: ExchangeRequest, lease: Lease, wanted: Required<ConnectionRequest>): Promise<Answer> {
    const connection = await lease.connection(wanted);
    let answer: Answer;
    try {
      answer = await exchange(connection, request, this.#settings, wanted.signal, wanted.limit);
    } finally {
      if (connection.unasked) this.#pool.distrust();
    }
    if (answer.reusable) lease.keep(connection);
    // It was asked while the server was still trusted; nobody knows what it answers.
    if (request.body === undefined || !connection.reused || !this.#pool.distrusts) return answer;
    const why = "the server sends what nobody asked for, so that an answer on a kept connection can't be believed";
    return { ...answer, broken: answer.broken ?? new IcapError("protocol", why, { answered: true }) };
  }

  /** An answer's ISTag; one that is longer than any server's breaks the answer. */
  #tagOf({ headers, broken }: Answer): Pick<Answer, "broken"> & { readonly isTag: string | undefined } {
    try {
      const tag = readIsTag(headers);
      const { credentials } = this.#settings;
      return { isTag: tag && (credentials?.disguise(tag) ?? tag), broken };
    } catch (error) {
      if (!(error instanceof IcapError)) throw error;
      return { isTag: undefined, broken: broken ?? new IcapError(error.code, error.message, { answered: true }) };
    }
  }

  async #replacement(answer: Answer, verdict: Verdict, request: IcapScanRequest): Promise<IcapScanResult["replacement"]> {
    const { method, credentials } = this.#settings;
    const replacement = method === "RESPMOD" ? await replacementIn(answer, verdict, request) : undefined;
    const repeats = replacement?.contentType !== undefined && credentials?.isRepeatedIn(replacement.contentType) === true;
    return replacement !== undefined && repeats ? { ...replacement, contentType: undefined } : replacement;
  }

  #page({ http }: Answer, verdict: Verdict): Pick<IcapScanResult, "page"> {
    const { method, credentials } = this.#settings;
    if (method !== "REQMOD" || http === undefined || verdict.outcome !== "infected") return {};
    if (verdict.threat !== satisfaction(http.status)) return {};
    const contentType = contentTypeOf(http.headers);
    const repeats = contentType !== undefined && credentials?.isRepeatedIn(contentType) === true;
    return { page: { contentType: repeats ? undefined : contentType } };
  }

  #headFacts({ httpTarget }: ScanMessage, answer: Answer): HeadFacts {
    const { method } = this.#settings;
    const { httpRequest } = answer;
    return {
      method,
      icapStatus: answer.status,
      icapHeaders: answer.headers,
      http: answer.http,
      request:
        method === "RESPMOD" || httpRequest === undefined ? "none" : isRequestFor(httpTarget, httpRequest.startLine) ? "same" : "other",
      requestHeaders: httpRequest?.headers,
      sentHttpStatus: SENT_HTTP_STATUS,
    };
  }

  #scrubbed(verdict: Verdict): Verdict {
    const { credentials } = this.#settings;
    if (credentials === undefined || verdict.outcome === "clean") return verdict;
    if (verdict.outcome === "infected") return { ...verdict, threat: credentials.scrub(verdict.threat) };
    return { ...verdict, why: credentials.scrub(verdict.why) };
  }

  /** Once the service is closed, that is why anything fails, except for what the caller itself ended. */
  #reasonFor(error: unknown, signal: AbortSignal): unknown {
    if (this.#pool.closing.aborted && !signal.aborted) return this.#pool.closing.reason;
    if (!(error instanceof IcapError)) return error;
    const message = this.#settings.credentials?.scrub(error.message) ?? error.message;
    return message === error.message ? error : new IcapError(error.code, message, { answered: error.answered });
  }
}

/**
 * The returned body beside the one sent. Only a body that may be the same is worth another pass over the file; most servers send none.
 * @throws whatever the body throws; the signal's reason.
 */
function bodyBeside({ body, returned }: Answer, request: IcapScanRequest): AnswerFacts["body"] | Promise<AnswerFacts["body"]> {
  if (body === "none") return "none";
  if (body === "nothing") return "identical";
  if (returned === undefined || returned.size !== request.size) return "different";
  return beginsWith(request.body(), returned.size, returned.sha256, request.signal).then((same) => (same ? "identical" : "different"));
}
