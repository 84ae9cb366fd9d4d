/** The configured homeserver as it takes media in: https://spec.matrix.org/v1.19/client-server-api/#uploads */
import { Readable } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import { Agent, type Dispatcher, type ProxyAgent } from "undici";
import { GatewayError } from "../errors.ts";
import { readBounded } from "./bounded-body.ts";
import { withoutTrailingSlash } from "./discovery.ts";
import { failure } from "./failure.ts";
import { parseObject } from "./homeserver-answer.ts";
import { parseMxcUrl } from "./mxc.ts";
import { connectorTo, proxyAgent } from "./outbound.ts";
import { authorizationOf, checkAdditionalHeaders, homeHeaders } from "./request-headers.ts";
import type { Credentials, HomeserverAnswer, Mxc } from "./source.ts";

/** Where an upload goes: to a new URI, by one of the API's versions, or to one that was made before. */
export type UploadTarget = { readonly kind: "new"; readonly api: "v3" | "v1" | "r0" } | { readonly kind: "created"; readonly mxc: Mxc };

export interface Upload {
  readonly target: UploadTarget;
  /** A media type, well-formed. */
  readonly contentType: string;
  readonly fileName: string | undefined;
  /** Exact number of bytes that `body` yields. */
  readonly size: number;
  readonly body: AsyncIterable<Buffer>;
}

export interface MediaStore extends AsyncDisposable {
  /**
   * Sends media whole, on behalf of this client. The answer is as it came.
   * @throws GatewayError `homeserver_failed` when there is no answer that a client could read; whatever the body throws; the signal's reason.
   */
  upload(upload: Upload, credentials: Credentials, signal: AbortSignal): Promise<HomeserverAnswer>;
  /** Has a URI made that is uploaded to later. @throws as `upload`. */
  create(credentials: Credentials, signal: AbortSignal): Promise<HomeserverAnswer>;
  /** Bytes that the homeserver takes of this client at most; undefined when it does not say. @throws the signal's reason. */
  maxUploadSize(credentials: Credentials, signal: AbortSignal): Promise<number | undefined>;
}

export interface MediaStoreOptions {
  /** Of the homeserver, http or https. */
  readonly baseUrl: string;
  /** An http or https proxy, for every request. */
  readonly proxy?: string;
  /** The operator's own. */
  readonly additionalHeaders: Readonly<Record<string, string>>;
  /** As of `HomeserverOptions`. */
  readonly pseudonym: string;
  /** Milliseconds to connect (10 s), without progress until the answer's head is there (60 s), and between two pieces of it (30 s). */
  readonly timeouts?: { readonly connect?: number; readonly headers?: number; readonly bodyIdle?: number };
  /** Connections at most (256). */
  readonly maxConnections?: number;
  /** Told of the credentials to which the homeserver answers 401. */
  readonly refused?: (credentials: Credentials) => void;
}

const MAX_ANSWER = 64 * 1024;
const MAX_HEADER_SIZE = 16 * 1024;
/** Printable ASCII; a number of seconds or a date. */
const RETRY_AFTER = /^[\x20-\x7e]{1,64}$/;
const USER_AGENT = "matrix-icap-gateway";

/**
 * Each upload has a connection of its own: a kept one may be over when a body is already on its way, and who could tell then whether the homeserver has
 * stored it? Redirects are not followed: no other server gets the media.
 */
export class HomeserverStore implements MediaStore {
  readonly #origin: string;
  readonly #path: string;
  readonly #additionalHeaders: Readonly<Record<string, string>>;
  readonly #timeouts: { readonly headers: number; readonly bodyIdle: number };
  readonly #agent: Agent | ProxyAgent;
  readonly #serverName: string | undefined;
  readonly #refused: (credentials: Credentials) => void;

  /** @throws TypeError for a URL or a header that can't be used. */
  constructor(options: MediaStoreOptions) {
    const base = new URL(options.baseUrl);
    const { connect, headers, bodyIdle } = { connect: 10_000, headers: 60_000, bodyIdle: 30_000, ...options.timeouts };
    this.#origin = base.origin;
    this.#refused = options.refused ?? (() => undefined);
    this.#path = new URL(withoutTrailingSlash(base)).pathname.replace(/\/$/, "");
    const via = `1.1 ${options.pseudonym}`;
    this.#additionalHeaders = { "user-agent": USER_AGENT, ...checkAdditionalHeaders(options.additionalHeaders), via };
    this.#timeouts = { headers, bodyIdle };
    this.#serverName = base.protocol === "https:" && /[a-z]/i.test(base.hostname) ? base.hostname : undefined;
    const limits = {
      connections: options.maxConnections ?? 256,
      pipelining: 0,
      maxHeaderSize: MAX_HEADER_SIZE,
      allowH2: false,
      connectTimeout: connect,
    };
    this.#agent =
      options.proxy === undefined
        ? new Agent({ ...limits, connect: connectorTo({ timeout: connect }) })
        : proxyAgent(options.proxy, connect, limits);
  }

  async upload(upload: Upload, credentials: Credentials, signal: AbortSignal): Promise<HomeserverAnswer> {
    const { target, contentType, fileName, size, body } = upload;
    const query = fileName === undefined ? "" : `?${new URLSearchParams({ filename: fileName }).toString()}`;
    const headers = { "content-type": contentType, "content-length": String(size) };
    const method = target.kind === "new" ? "POST" : "PUT";
    return this.#answer(await this.#ask(method, pathOf(target) + query, credentials, signal, { headers, body: listening(body) }), signal);
  }

  async create(credentials: Credentials, signal: AbortSignal): Promise<HomeserverAnswer> {
    return this.#answer(await this.#ask("POST", "/_matrix/media/v1/create", credentials, signal), signal);
  }

  async maxUploadSize(credentials: Credentials, signal: AbortSignal): Promise<number | undefined> {
    // Homeservers older than Matrix 1.11 know only the second.
    for (const path of ["/_matrix/client/v1/media/config", "/_matrix/media/v3/config"]) {
      const answer = await this.#ask("GET", path, credentials, signal).catch(() => undefined);
      signal.throwIfAborted();
      const text = answer === undefined ? undefined : await readBounded(answer.body, MAX_ANSWER, signal);
      if (answer?.statusCode === 404) continue;
      return answer?.statusCode === 200 ? sizeIn(parseObject(text)) : undefined;
    }
    return undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }

  async #ask(
    method: "GET" | "POST" | "PUT",
    path: string,
    credentials: Credentials,
    signal: AbortSignal,
    media: { readonly headers: Readonly<Record<string, string>>; readonly body: AsyncIterable<Buffer> | null } = {
      headers: {},
      body: null,
    },
  ): Promise<Dispatcher.ResponseData> {
    signal.throwIfAborted();
    const headers = homeHeaders(credentials, authorizationOf(credentials), this.#additionalHeaders);
    try {
      const answer = await this.#agent.request({
        origin: this.#origin,
        path: this.#path + path,
        method,
        headers: { ...headers, ...media.headers, "accept-encoding": "identity" },
        body: media.body === null ? null : Readable.from(media.body, { objectMode: false }),
        signal,
        headersTimeout: this.#timeouts.headers,
        bodyTimeout: this.#timeouts.bodyIdle,
        ...(this.#serverName === undefined ? {} : { servername: this.#serverName }),
      });
      if (answer.statusCode === 401) this.#refused(credentials);
      return answer;
    } catch (error) {
      throw failure(error, signal);
    }
  }

  async #answer({ statusCode, headers, body }: Dispatcher.ResponseData, signal: AbortSignal): Promise<HomeserverAnswer> {
    const bytes = await readBounded(body, MAX_ANSWER, signal);
    // What a proxy before the homeserver has to say, say. Its own page is nothing that a client reads, but this it understands.
    if (statusCode === 413 && parseObject(bytes) === undefined) throw new GatewayError("upload_too_large");
    if (bytes === undefined || parseObject(bytes) === undefined || !isAnswer(statusCode)) {
      throw new GatewayError("homeserver_failed", { detail: `the homeserver answered an upload with ${statusCode} and no JSON object` });
    }
    const retryAfter = headers["retry-after"];
    return {
      status: statusCode,
      retryAfter: typeof retryAfter === "string" && RETRY_AFTER.test(retryAfter) ? retryAfter : undefined,
      body: bytes,
    };
  }
}

/** Its yes, or a no with an error of its own; whatever else it says means nothing to a client. */
function isAnswer(status: number): boolean {
  return status === 200 || (status >= 400 && status <= 599);
}

/** The URI that the homeserver gave to what was uploaded; undefined when it did not take it, or says none that can be. */
export function storedAt(target: UploadTarget, { status, body }: HomeserverAnswer): Mxc | undefined {
  if (status !== 200) return undefined;
  if (target.kind === "created") return target.mxc;
  const uri = parseObject(body)?.["content_uri"];
  return typeof uri === "string" ? parseMxcUrl(uri) : undefined;
}

/**
 * The same bytes, with a look at what has come before each piece of them. A homeserver that refuses early may close the connection at once: a write would then
 * fail before its answer, which is there, has been read.
 */
async function* listening(body: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  for await (const chunk of body) {
    await turn();
    yield chunk;
  }
}

function pathOf(target: UploadTarget): string {
  if (target.kind === "new") return `/_matrix/media/${target.api}/upload`;
  const { serverName, mediaId } = target.mxc;
  return `/_matrix/media/v3/upload/${encodeURIComponent(serverName)}/${encodeURIComponent(mediaId)}`;
}

function sizeIn(config: Readonly<Record<string, unknown>> | undefined): number | undefined {
  const size = config?.["m.upload.size"];
  return typeof size === "number" && Number.isSafeInteger(size) && size >= 0 ? size : undefined;
}
