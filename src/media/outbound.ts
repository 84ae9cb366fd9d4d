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
import { Exchange } from "./exchange.ts";
import type { Head } from "./exchange.ts";
import type { MediaBody } from "./source.ts";

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

export interface Answer extends Head {
  readonly body: MediaBody;
  /** Whether the configured homeserver's own origin gave it. */
  readonly fromHome: boolean;
}

/** What is asked of a dispatcher, beside what every request has. */
interface Question {
  readonly origin: string;
  /** With its query. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** The name that the certificate is to prove, if there is one. */
  readonly servername: string | undefined;
}

const MAX_HEADER_SIZE = 16 * 1024;
const MAX_REDIRECT_BODY = 16 * 1024;
const MAX_ORIGINS = 256;
const IDENTITY = { "accept-encoding": "identity" };
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
  readonly #homeServerName: string | undefined;

  constructor(options: OutboundOptions) {
    this.#options = options;
    this.#resolve = options.resolve ?? dnsResolve;
    this.#isAllowed = options.isAllowedAddress ?? isPublicAddress;
    this.#homeServerName = options.homeOrigin === undefined ? undefined : serverNameOf(new URL(options.homeOrigin));
    if (options.proxy === undefined) {
      this.#home = new Agent({ ...this.#limits(options.maxConnections), connect: connectorTo({ timeout: options.timeouts.connect }) });
      this.#guarded = new Agent({ ...this.#guardedLimits(), connect: this.#guardedConnector() });
    } else {
      this.#home = proxyAgent(options.proxy, options.timeouts.connect, this.#limits(options.maxConnections));
      this.#guarded = proxyAgent(options.proxy, options.timeouts.connect, this.#guardedLimits());
    }
  }

  /**
   * Asks the configured homeserver for a path (with its query), sending `headers`, and follows its redirects.
   * @throws what undici throws, RedirectError, AddressRefusedError, the signal's reason
   */
  async fromHome(path: string, headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<Answer> {
    const answer = await this.#askHome(path, headers, signal);
    if (!REDIRECTS.has(answer.statusCode)) return answer;
    return this.#follow(answer, new URL(`${this.#options.homeOrigin}${path}`), headers, signal);
  }

  /** Asks any server, as a stranger, and follows its redirects. Throws as `fromHome`. */
  async fromStranger(url: URL, signal: AbortSignal): Promise<Answer> {
    return this.#follow(await this.#askStranger(url, signal), url, undefined, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#home.destroy(), this.#guarded.destroy()]);
  }

  /** @param homeHeaders for the configured homeserver, while it is still believed */
  async #follow(
    first: Answer,
    start: URL,
    homeHeaders: Readonly<Record<string, string>> | undefined,
    signal: AbortSignal,
  ): Promise<Answer> {
    let answer = first;
    let url = start;
    for (let redirects = 0; REDIRECTS.has(answer.statusCode); redirects++) {
      // Read, so that the connection can be used again; what it says does not matter.
      await readBounded(answer.body, MAX_REDIRECT_BODY, signal);
      if (redirects === this.#options.maxRedirects) throw new RedirectError(`more than ${this.#options.maxRedirects} redirects`);
      const { location } = answer.headers;
      const next = typeof location === "string" ? URL.parse(location, url) : null;
      if (next === null) throw new RedirectError(`${answer.statusCode} without a usable Location`);
      next.hash = "";
      url = next;
      if (answer.fromHome && homeHeaders !== undefined && url.origin === this.#options.homeOrigin) {
        if (url.username !== "" || url.password !== "") throw new AddressRefusedError("a URL with user information");
        answer = await this.#askHome(pathOf(url), homeHeaders, signal);
      } else {
        answer = await this.#askStranger(url, signal);
      }
    }
    return answer;
  }

  #askHome(path: string, headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<Answer> {
    const { homeOrigin: origin } = this.#options;
    if (origin === undefined) throw new TypeError("no homeserver is configured");
    const { userAgent } = this.#options;
    const question = { origin, path, headers: { "user-agent": userAgent, ...headers, ...IDENTITY }, servername: this.#homeServerName };
    return this.#send(this.#home, question, true, signal);
  }

  /**
   * A proxy resolves names by itself, out of sight of any check here. So it is asked for an address that was checked, and the name is
   * left to TLS and the Host header.
   */
  async #askStranger(url: URL, signal: AbortSignal): Promise<Answer> {
    guardUrl(url, this.#isAllowed);
    let { origin } = url;
    if (this.#options.proxy !== undefined && addressLiteral(url) === undefined) {
      const [first] = await resolveAllowed(url.hostname, this.#resolve, this.#isAllowed);
      signal.throwIfAborted();
      if (first === undefined) throw new AddressRefusedError("a name without an address");
      origin = `https://${first.family === 6 ? `[${first.address}]` : first.address}:${url.port || 443}`;
    }
    const headers = { "user-agent": this.#options.userAgent, host: url.host, ...IDENTITY };
    return this.#send(this.#guarded, { origin, path: pathOf(url), headers, servername: serverNameOf(url) }, false, signal);
  }

  /** Once more where a kept connection was over before the request got there. */
  async #send(dispatcher: Dispatcher, question: Question, fromHome: boolean, signal: AbortSignal): Promise<Answer> {
    const { headers: headersTimeout, bodyIdle: bodyTimeout } = this.#options.timeouts;
    for (let again = false; ; again = true) {
      signal.throwIfAborted();
      const body = new Exchange(signal);
      try {
        const { statusCode, headers } = await body.begin(dispatcher, { ...question, method: "GET", headersTimeout, bodyTimeout });
        return { statusCode, headers, body, fromHome };
      } catch (error) {
        if (again || signal.aborted || !isReusedConnectionRace(error)) throw error;
      }
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

function pathOf(url: URL): string {
  return url.pathname + url.search;
}

/** TLS proves the URL's own name, whatever Host the client had forwarded. */
function serverNameOf(url: URL): string | undefined {
  return url.protocol === "https:" && addressLiteral(url) === undefined ? url.hostname : undefined;
}

function isReusedConnectionRace(error: unknown): boolean {
  if (!(error instanceof Error) || !("code" in error) || typeof error.code !== "string" || !CLOSED_BY_PEER.has(error.code)) return false;
  if (error.code !== "UND_ERR_SOCKET") return true;
  const socket = "socket" in error ? error.socket : undefined;
  return typeof socket === "object" && socket !== null && "bytesRead" in socket && socket.bytesRead !== 0;
}
