/**
 * Media from homeservers, over the client-server API: https://spec.matrix.org/v1.19/client-server-api/#content-repository
 *
 * Each fetch is the client's own request: the configured homeserver sees this client's token and decides. Without a configured homeserver, media
 * comes from the server in the `mxc://` URI, which an attacker may have chosen: it gets no token, no forwarded header, and is
 * reached at public addresses only.
 */
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { GatewayError } from "../errors.ts";
import { isPublicAddress } from "./address-guard.ts";
import type { AddressFilter, Resolve } from "./address-guard.ts";
import { readBounded } from "./bounded-body.ts";
import { decodingFor } from "./content-encoding.ts";
import { DecodedBody } from "./decoded-body.ts";
import { Discovery, withoutTrailingSlash } from "./discovery.ts";
import { failure } from "./failure.ts";
import { readForwarded } from "./forwarded-answer.ts";
import { errorFromAnswer } from "./homeserver-answer.ts";
import { Outbound } from "./outbound.ts";
import type { Answer } from "./outbound.ts";
import { authorizationOf, checkAdditionalHeaders, homeHeaders } from "./request-headers.ts";
import type {
  AskedEndpoint,
  Credentials,
  FetchedMedia,
  HomeserverAnswer,
  ForwardedRequest,
  Forwarder,
  Identifier,
  MediaApi,
  MediaSource,
  MediaVariant,
  Mxc,
  ThumbnailParameters,
} from "./source.ts";

export interface HomeserverOptions {
  /** The configured homeserver (http or https); without it, each media's own server is discovered. */
  readonly baseUrl?: string;
  /** An http or https proxy, for every request. */
  readonly proxy?: string;
  /**
   * The operator's own headers. Because they often hold secrets for what stands before the homeserver, servers that are not configured
   * get none of them but `user-agent`.
   */
  readonly additionalHeaders: Readonly<Record<string, string>>;
  /** What this gateway calls itself to the configured homeserver, in `Via` (RFC 9110, section 7.6.3): so it knows its own requests when they come back. */
  readonly pseudonym?: string;
  /** Milliseconds to connect (10 s), until the answer's head is there (60 s), and between two pieces of a body (30 s). */
  readonly timeouts?: { readonly connect?: number; readonly headers?: number; readonly bodyIdle?: number };
  /** Redirects followed for one request (3). */
  readonly maxRedirects?: number;
  /** Connections to the configured homeserver at most (256). */
  readonly maxConnections?: number;
  /** Bytes that a body with a Content-Encoding may decode to at most. */
  readonly maxDecodedSize: number;
  /** Milliseconds since the epoch. */
  readonly clock?: () => number;
  /** How names of servers that are not configured are resolved (DNS). */
  readonly resolve?: Resolve;
  /** Which addresses such servers may have (`isPublicAddress`). */
  readonly isAllowedAddress?: AddressFilter;
}

/**
 * How long the homeserver may wait at most for media that is not there yet, or fetch it from another server. The specification's default
 * of 20 s would leave nothing of a client's 30 s for the scan.
 */
const MAX_TIMEOUT_MS = 10_000;

const USER_AGENT = "matrix-icap-gateway";

const MAX_WHOAMI = 16 * 1024;
/** https://spec.matrix.org/v1.19/appendices/#user-identifiers, with the localparts that older servers allowed. */
const USER_ID = /^@[\x21-\x39\x3b-\x7e]{0,254}:[A-Za-z0-9.:[\]-]{1,255}$/;

export class Homeserver implements MediaSource, Forwarder, Identifier {
  readonly #base: URL | undefined;
  /** Of the configured homeserver: what stands before its paths. */
  readonly #basePath: string;
  readonly #additionalHeaders: Readonly<Record<string, string>>;
  readonly #maxDecodedSize: number;
  readonly #clock: () => number;
  readonly #outbound: Outbound;
  readonly #discovery: Discovery;

  /** @throws TypeError for a URL or a header that can't be used */
  constructor(options: HomeserverOptions) {
    const base = options.baseUrl === undefined ? undefined : httpUrl(options.baseUrl, "base URL");
    if (base !== undefined && (base.username !== "" || base.password !== "" || base.search !== "" || base.hash !== "")) {
      throw new TypeError("the homeserver's base URL has more than scheme, host, port and path");
    }
    this.#base = base;
    this.#basePath = base === undefined ? "" : withoutTrailingSlash(base).slice(base.origin.length);
    const via = options.pseudonym === undefined ? {} : { via: `1.1 ${options.pseudonym}` };
    this.#additionalHeaders = { ...checkAdditionalHeaders(options.additionalHeaders), ...via };
    this.#maxDecodedSize = options.maxDecodedSize;
    this.#clock = options.clock ?? Date.now;
    this.#outbound = new Outbound({
      homeOrigin: base?.origin,
      proxy: options.proxy === undefined ? undefined : httpUrl(options.proxy, "proxy's URL").href,
      userAgent: this.#additionalHeaders["user-agent"] ?? USER_AGENT,
      timeouts: { connect: 10_000, headers: 60_000, bodyIdle: 30_000, ...options.timeouts },
      maxRedirects: options.maxRedirects ?? 3,
      maxConnections: options.maxConnections ?? 256,
      resolve: options.resolve,
      isAllowedAddress: options.isAllowedAddress,
    });
    this.#discovery = new Discovery({
      ask: (url, signal) => this.#outbound.fromStranger(url, signal),
      isAllowedAddress: options.isAllowedAddress ?? isPublicAddress,
      now: this.#clock,
    });
  }

  async fetch(
    mxc: Mxc,
    variant: MediaVariant,
    credentials: Credentials,
    signal: AbortSignal,
    asked?: AskedEndpoint,
  ): Promise<FetchedMedia> {
    signal.throwIfAborted();
    if (this.#base === undefined) {
      const base = await this.#discovery.baseUrl(mxc.serverName, signal);
      return this.#fetchUnauthenticated(mxc, variant, (path) => this.#fromStranger(base + path, signal));
    }
    const authorization = authorizationOf(credentials);
    const headers = homeHeaders(credentials, authorization, this.#additionalHeaders);
    if (asked === undefined && authorization === undefined) {
      return this.#fetchUnauthenticated(mxc, variant, (path) => this.#fromHome(path, headers, signal));
    }
    return this.#fromHome(mediaPath(asked?.api ?? "client/v1/media", mxc, variant, asked), headers, signal);
  }

  async forward({ api, endpoint, query }: ForwardedRequest, credentials: Credentials, signal: AbortSignal): Promise<HomeserverAnswer> {
    if (this.#base === undefined) throw new GatewayError("homeserver_failed", { detail: "no homeserver is configured" });
    const parameters = new URLSearchParams(query).toString();
    const path = `${this.#basePath}/_matrix/${api}/${endpoint}${parameters === "" ? "" : `?${parameters}`}`;
    const headers = homeHeaders(credentials, authorizationOf(credentials), this.#additionalHeaders);
    try {
      return await readForwarded(await this.#outbound.fromHome(path, headers, signal), this.#clock(), signal);
    } catch (error) {
      throw failure(error, signal);
    }
  }

  async whoami(credentials: Credentials, signal: AbortSignal): Promise<string | undefined> {
    const authorization = authorizationOf(credentials);
    if (this.#base === undefined || authorization === undefined) return undefined;
    const headers = homeHeaders(credentials, authorization, this.#additionalHeaders);
    try {
      const answer = await this.#outbound.fromHome(`${this.#basePath}/_matrix/client/v3/account/whoami`, headers, signal);
      if (answer.statusCode !== 200) throw await errorFromAnswer(answer, { authorized: true, now: this.#clock(), signal });
      const userId = userIdIn(await readBounded(answer.body, MAX_WHOAMI, signal));
      if (!answer.fromHome || userId === undefined) throw new Error("the homeserver did not say whose token it is");
      return userId;
    } catch (error) {
      throw failure(error, signal);
    }
  }

  async address(): Promise<string | undefined> {
    if (this.#base === undefined) return undefined;
    const host = this.#base.hostname.replace(/^\[|\]$/g, "");
    if (isIP(host) !== 0) return host;
    // What can't be resolved can't be reached either, and is told then.
    return lookup(host).then(
      ({ address }) => address,
      () => undefined,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#outbound[Symbol.asyncDispose]();
  }

  /** The endpoints from before authenticated media. Homeservers older than Matrix 1.1 know only the second. */
  async #fetchUnauthenticated(mxc: Mxc, variant: MediaVariant, ask: (path: string) => Promise<FetchedMedia>): Promise<FetchedMedia> {
    try {
      return await ask(mediaPath("media/v3", mxc, variant));
    } catch (error) {
      if (!(error instanceof GatewayError && error.code === "not_found")) throw error;
      return ask(mediaPath("media/r0", mxc, variant));
    }
  }

  #fromHome(path: string, headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<FetchedMedia> {
    return this.#media(this.#outbound.fromHome(this.#basePath + path, headers, signal), "authorization" in headers, signal);
  }

  async #fromStranger(text: string, signal: AbortSignal): Promise<FetchedMedia> {
    const url = URL.parse(text);
    // A name within the grammar that no URL can have, such as 1.2.3.999.
    if (url === null) throw new GatewayError("homeserver_failed", { detail: "a server name that can't be reached" });
    return this.#media(this.#outbound.fromStranger(url, signal), false, signal);
  }

  async #media(asked: Promise<Answer>, authorized: boolean, signal: AbortSignal): Promise<FetchedMedia> {
    let answer: Answer;
    try {
      answer = await asked;
    } catch (error) {
      throw failure(error, signal);
    }
    if (answer.statusCode !== 200) throw await errorFromAnswer(answer, { authorized, now: this.#clock(), signal });
    const { headers, body } = answer;
    const decoding = decodingFor(headers["content-encoding"]);
    if (decoding === undefined) {
      body.destroy();
      throw new GatewayError("homeserver_failed", { detail: "the homeserver applied a Content-Encoding that can't be undone" });
    }
    return {
      contentType: single(headers["content-type"]),
      contentDisposition: single(headers["content-disposition"]),
      size: decoding === "none" ? contentLength(headers["content-length"]) : undefined,
      body: decoding === "none" ? body : new DecodedBody(body, decoding(), this.#maxDecodedSize, signal),
    };
  }
}

/** `allow_redirect` is not among the parameters: a homeserver that must be asked for redirects sends the bytes themselves. */
function mediaPath(
  api: MediaApi,
  { serverName, mediaId }: Mxc,
  variant: MediaVariant,
  { timeoutMs = MAX_TIMEOUT_MS, allowRemote }: Partial<AskedEndpoint> = {},
): string {
  const path = `/_matrix/${api}/${variant.kind}/${encodeURIComponent(serverName)}/${encodeURIComponent(mediaId)}`;
  const size = variant.kind === "thumbnail" ? `${thumbnailQuery(variant)}&` : "";
  const remote = allowRemote === undefined ? "" : `&allow_remote=${allowRemote}`;
  return `${path}?${size}timeout_ms=${Math.min(timeoutMs, MAX_TIMEOUT_MS)}${remote}`;
}

function thumbnailQuery({ width, height, method, animated }: ThumbnailParameters): string {
  return `width=${width}&height=${height}&method=${method}${animated === undefined ? "" : `&animated=${animated}`}`;
}

function userIdIn(bytes: Buffer | undefined): string | undefined {
  try {
    const { user_id: userId } = JSON.parse(bytes?.toString("utf8") ?? "") as { readonly user_id?: unknown };
    return typeof userId === "string" && userId.length <= 255 && USER_ID.test(userId) ? userId : undefined;
  } catch {
    return undefined;
  }
}

function httpUrl(text: string, what: string): URL {
  const url = URL.parse(text);
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:"))
    throw new TypeError(`the ${what} is not an http or https URL`);
  return url;
}

/** A header that came once. One that came more often is no statement at all. */
function single(header: string | string[] | undefined): string | undefined {
  return typeof header === "string" ? header : undefined;
}

function contentLength(header: string | string[] | undefined): number | undefined {
  const length = typeof header === "string" && /^[0-9]{1,15}$/.test(header) ? Number(header) : undefined;
  return length;
}
