/**
 * HTTP GETs to the outside. Two kinds of peers: the configured homeserver's own origin, which is believed and gets what the client and
 * the operator send it; and everyone else (discovered servers, redirect targets), who gets nothing but a plain request, and only at
 * a public address over https. A chain of redirects that has left the origin never becomes believed again.
 */
import { isIP } from "node:net";
import { Agent, buildConnector, Pool, ProxyAgent } from "undici";
import type { Dispatcher } from "undici";
import {
  addressLiteral,
  AddressRefusedError,
  dnsResolve,
  guardedLookup,
  guardUrl,
  isPublicAddress,
  resolveAllowed,
} from "./address-guard.ts";
import type { AddressFilter, Resolve } from "./address-guard.ts";
import { readBounded } from "./bounded-body.ts";

export interface OutboundOptions {
  /** The configured homeserver's origin (scheme, host and port), if there is one. */
  readonly homeOrigin: string | undefined;
  /** The URL of an http or https proxy for every request. */
  readonly proxy: string | undefined;
  /** Sent as User-Agent to everyone. */
  readonly userAgent: string;
  /** Milliseconds for the TCP and TLS handshake; until an answer's head is there; and between two pieces of a body. */
  readonly timeouts: { readonly connect: number; readonly headers: number; readonly bodyIdle: number };
  readonly maxRedirects: number;
  /** Connections to the configured homeserver at most; to each other server it is an eighth. */
  readonly maxConnections: number;
  readonly resolve: Resolve | undefined;
  readonly isAllowedAddress: AddressFilter | undefined;
}

export type Answer = Pick<Dispatcher.ResponseData, "statusCode" | "headers" | "body"> & {
  /** Whether the configured homeserver's own origin gave it. */
  readonly fromHome: boolean;
};

const MAX_HEADER_SIZE = 16 * 1024;
const MAX_REDIRECT_BODY = 16 * 1024;
const MAX_ORIGINS = 256;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
/** The ends of a kept connection that the peer closed while the next request was on its way. */
const CLOSED_BY_PEER = new Set(["UND_ERR_SOCKET", "ECONNRESET", "EPIPE"]);

/** An answer that can't be followed: its message is for the log, and bounded. */
export class RedirectError extends Error {
  override readonly name = "RedirectError";
  readonly code = "ERR_BAD_REDIRECT";
}

export class Outbound implements AsyncDisposable {
  readonly #options: OutboundOptions;
  readonly #resolve: Resolve;
  readonly #isAllowed: AddressFilter;
  readonly #home: Dispatcher;
  readonly #guarded: Dispatcher;

  constructor(options: OutboundOptions) {
    this.#options = options;
    this.#resolve = options.resolve ?? dnsResolve;
    this.#isAllowed = options.isAllowedAddress ?? isPublicAddress;
    if (options.proxy === undefined) {
      this.#home = new Agent({ ...this.#limits(options.maxConnections), connect: connectorTo({ timeout: options.timeouts.connect }) });
      this.#guarded = new Agent({ ...this.#guardedLimits(), connect: this.#guardedConnector() });
    } else {
      this.#home = proxyAgent(options.proxy, options.timeouts.connect, this.#limits(options.maxConnections));
      this.#guarded = proxyAgent(options.proxy, options.timeouts.connect, this.#guardedLimits());
    }
  }

  /**
   * Asks the configured homeserver, with `headers`, and follows its redirects.
   * @throws what undici throws, RedirectError, AddressRefusedError, the signal's reason
   */
  fromHome(url: URL, headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<Answer> {
    return this.#follow(url, headers, signal);
  }

  /** Asks any server, as a stranger, and follows its redirects. Throws as `fromHome`. */
  fromStranger(url: URL, signal: AbortSignal): Promise<Answer> {
    return this.#follow(url, undefined, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#home.destroy(), this.#guarded.destroy()]);
  }

  async #follow(start: URL, homeHeaders: Readonly<Record<string, string>> | undefined, signal: AbortSignal): Promise<Answer> {
    let url = start;
    let fromHome = homeHeaders !== undefined;
    for (let redirects = 0; ; redirects++) {
      fromHome &&= url.origin === this.#options.homeOrigin;
      const answer =
        fromHome && homeHeaders !== undefined ? await this.#askHome(url, homeHeaders, signal) : await this.#askStranger(url, signal);
      if (!REDIRECTS.has(answer.statusCode)) return { statusCode: answer.statusCode, headers: answer.headers, body: answer.body, fromHome };

      // Read, so that the connection can be used again; what it says does not matter.
      await readBounded(answer.body, MAX_REDIRECT_BODY, signal);
      if (redirects === this.#options.maxRedirects) throw new RedirectError(`more than ${this.#options.maxRedirects} redirects`);
      const { location } = answer.headers;
      const next = typeof location === "string" ? URL.parse(location, url) : null;
      if (next === null) throw new RedirectError(`${answer.statusCode} without a usable Location`);
      next.hash = "";
      url = next;
    }
  }

  #askHome(url: URL, headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<Dispatcher.ResponseData> {
    if (url.username !== "" || url.password !== "") return Promise.reject(new AddressRefusedError("a URL with user information"));
    return this.#send(this.#home, url.origin, url, { "user-agent": this.#options.userAgent, ...headers }, signal);
  }

  /**
   * A proxy resolves names by itself, out of sight of any check here. So it is asked for an address that was checked, and the name is
   * left to TLS and the Host header.
   */
  async #askStranger(url: URL, signal: AbortSignal): Promise<Dispatcher.ResponseData> {
    guardUrl(url, this.#isAllowed);
    let { origin } = url;
    if (this.#options.proxy !== undefined && addressLiteral(url) === undefined) {
      const [first] = await resolveAllowed(url.hostname, this.#resolve, this.#isAllowed);
      signal.throwIfAborted();
      if (first === undefined) throw new AddressRefusedError("a name without an address");
      origin = `https://${first.family === 6 ? `[${first.address}]` : first.address}:${url.port || 443}`;
    }
    return this.#send(this.#guarded, origin, url, { "user-agent": this.#options.userAgent, host: url.host }, signal);
  }

  async #send(
    dispatcher: Dispatcher,
    origin: string,
    url: URL,
    headers: Record<string, string>,
    signal: AbortSignal,
  ): Promise<Dispatcher.ResponseData> {
    const options = {
      origin,
      path: url.pathname + url.search,
      method: "GET" as const,
      headers: { ...headers, "accept-encoding": "identity" },
      signal,
      headersTimeout: this.#options.timeouts.headers,
      bodyTimeout: this.#options.timeouts.bodyIdle,
      // TLS proves the URL's own name, whatever Host the client had forwarded.
      ...(url.protocol === "https:" && addressLiteral(url) === undefined ? { servername: url.hostname } : {}),
    };
    try {
      return await dispatcher.request(options);
    } catch (error) {
      if (signal.aborted || !isReusedConnectionRace(error)) throw error;
      return dispatcher.request(options);
    }
  }

  #limits(connections: number): Agent.Options {
    // HTTP/1.1 only: one exchange a connection, so that destroying a body ends its exchange and no other.
    return { connections, pipelining: 1, maxHeaderSize: MAX_HEADER_SIZE, allowH2: false, connectTimeout: this.#options.timeouts.connect };
  }

  #guardedLimits(): Agent.Options {
    return { ...this.#limits(Math.max(1, this.#options.maxConnections >> 3)), maxOrigins: MAX_ORIGINS };
  }

  #guardedConnector(): buildConnector.connector {
    const connect = connectorTo({ timeout: this.#options.timeouts.connect, lookup: guardedLookup(this.#resolve, this.#isAllowed) });
    return (options, callback) => {
      const host = options.hostname.replace(/^\[|\]$/g, "");
      if (isIP(host) !== 0 && !this.#isAllowed(host)) callback(new AddressRefusedError(`${host} is not a public address`), null);
      else connect(options, callback);
    };
  }
}

/** A connector that proves the certificate for the host it connects to, never for another name. */
export function connectorTo(options: buildConnector.BuildOptions): buildConnector.connector {
  const connect = buildConnector({ ...options, allowH2: false });
  // Without a server name it takes the URL's own; undici hands over the one in the Host header.
  return (connectOptions, callback) => connect({ ...connectOptions, servername: "" }, callback);
}

export function proxyAgent(uri: string, connectTimeout: number, limits: Agent.Options): ProxyAgent {
  return new ProxyAgent({
    ...limits,
    uri,
    connectTimeout,
    // Requests that the proxy forwards without a tunnel go through a pool to the proxy, which would otherwise have no limits.
    factory: (origin, options: Pool.Options) => new Pool(origin, { ...limits, ...options }),
  });
}

function isReusedConnectionRace(error: unknown): boolean {
  if (!(error instanceof Error) || !("code" in error) || typeof error.code !== "string" || !CLOSED_BY_PEER.has(error.code)) return false;
  if (error.code !== "UND_ERR_SOCKET") return true;
  const socket = "socket" in error ? error.socket : undefined;
  return typeof socket === "object" && socket !== null && "bytesRead" in socket && socket.bytesRead !== 0;
}
