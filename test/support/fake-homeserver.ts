/**
 * A homeserver's media repository on loopback, in HTTP as real as node:http makes it. Its answers are modelled on Synapse's; and it can be told to misbehave,
 * for one media or for all.
 */
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { IncomingHttpHeaders, IncomingMessage, OutgoingHttpHeaders, Server, ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { brotliCompressSync, constants, deflateSync, gzipSync, zstdCompressSync } from "node:zlib";

/** Ways to misbehave; those that make sense together may be given together. */
export interface Behaviour {
  /** Answers this in place of the media. `body` may be JSON or bytes. */
  readonly answer?: { readonly status: number; readonly body?: unknown; readonly headers?: OutgoingHttpHeaders };
  /** 307 (or the status of `answer`) to this URL. */
  readonly redirectTo?: string;
  /** Never answers; or sends the head and nothing (`body`), or the head and so many bytes (`stallAfter`). */
  readonly stall?: "headers" | "body";
  readonly stallAfter?: number;
  /** When to send the rest after that. */
  readonly resume?: Promise<void>;
  /** Closes the connection after so many bytes of the body. */
  readonly cutAfter?: number;
  /** Closes the connection without a word. */
  readonly hangUp?: boolean;
  /** Says so in Content-Encoding, and compresses, whatever Accept-Encoding asks for. */
  readonly contentEncoding?: "gzip" | "deflate" | "br" | "zstd";
  /** Sends the body in chunks, without a length. */
  readonly chunked?: boolean;
  /** Sends the body as 206 with a Content-Range. */
  readonly partial?: boolean;
  /** Sends so many bytes at a time, with a pause (ms) after each. */
  readonly drip?: { readonly bytes: number; readonly pause: number };
  /** Set beside, or in place of, the usual ones. */
  readonly headers?: OutgoingHttpHeaders;
}

export interface StoredMedia {
  readonly bytes: Uint8Array;
  readonly contentType?: string;
  readonly contentDisposition?: string;
  /** Tokens whose users may read it; everyone who is logged in, if not given. Others get 403. */
  readonly readers?: readonly string[];
  /** Served without a token too. Media is frozen (404 without one) otherwise, as on today's homeservers. */
  readonly unauthenticated?: boolean;
  /** Created, but not uploaded yet: 504. */
  readonly pending?: boolean;
  /** What its thumbnails are; the media itself, if not given. */
  readonly thumbnail?: { readonly bytes: Uint8Array; readonly contentType: string };
  readonly behaviour?: Behaviour;
}

export interface ReceivedRequest {
  readonly method: string;
  /** Path and query as they came, nothing decoded. */
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
}

/** An upload that came whole. */
export interface ReceivedUpload {
  readonly method: string;
  /** Path and query as they came. */
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly size: number;
  readonly sha256: string;
  /** Empty where uploads are not kept. */
  readonly bytes: Buffer;
}

/** Ways to deal with uploads otherwise. */
export interface UploadBehaviour {
  /** Answered once so many bytes of the body came, or all of it; the rest is thrown away, as nginx does. */
  readonly answer?: { readonly status: number; readonly body?: unknown; readonly headers?: OutgoingHttpHeaders };
  readonly after?: number;
  /** Closes the connection after so many bytes. */
  readonly hangUpAfter?: number;
  /** Never answers, though it takes everything. */
  readonly stall?: boolean;
  /** Awaited before the answer. */
  readonly hold?: Promise<unknown>;
}

export type TokenState = "valid" | "expired";

export interface FakeHomeserverOptions {
  /** The server name of media that `put` is not told one for. */
  readonly serverName?: string;
  /** Serves https with this certificate. */
  readonly tls?: { readonly key: string; readonly cert: string };
  /** Whether `requests` is kept; benchmarks turn it off. */
  readonly record?: boolean;
  /** Which unauthenticated API it knows; homeservers older than Matrix 1.1 know only r0. */
  readonly unauthenticatedApis?: readonly ("v3" | "v1" | "r0")[];
}

const MEDIA_PATH = /^\/_matrix\/(client\/v1\/media|media\/v3|media\/v1|media\/r0)\/(download|thumbnail)\/([^/]+)\/([^/]+)(?:\/[^/]*)?$/;

const QUESTION_PATH = /^\/_matrix\/(?:client\/v1\/media|media\/(?:v3|v1|r0))\/(config|preview_url)$/;

const UPLOAD_PATH = /^\/_matrix\/media\/(?:(?:v3|v1|r0)\/upload|v3\/upload\/([^/]+)\/([^/]+))$/;

/** On whatever is answered. */
const CORS_HEADERS = {
  "access-control-allow-origin": "*",
  "access-control-allow-methods": "GET, HEAD, POST, PUT, DELETE, OPTIONS",
  "access-control-allow-headers": "X-Requested-With, Content-Type, Authorization, Date",
  "access-control-expose-headers": "Synapse-Trace-Id, Server",
};

/** On what the download endpoint answers to those who are logged in, errors too. */
const SANDBOX_HEADERS = {
  "content-security-policy":
    "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; style-src 'unsafe-inline'; media-src 'self'; object-src 'self';",
  "x-content-security-policy": "sandbox;",
  "cross-origin-resource-policy": "cross-origin",
  "referrer-policy": "no-referrer",
};

const THUMBNAIL_HEADERS = { "cross-origin-resource-policy": "cross-origin" };

const NO_THUMBNAIL =
  " This might mean the media is not a supported_media_format=(image/jpeg, image/jpg, image/webp, image/gif, image/png) or that thumbnailing failed for some other reason. (Dynamic thumbnails are disabled on this server.)";

const MEDIA_HEADERS = {
  ...CORS_HEADERS,
  "x-robots-tag": "noindex, nofollow, noarchive, noimageindex",
  "cache-control": "public,max-age=86400,s-maxage=0,proxy-revalidate",
  etag: "1",
};

const INLINE =
  /^(image\/(jpeg|gif|png|apng|webp|avif)|video\/(mp4|webm|ogg|quicktime)|audio\/|text\/(css|plain|csv)|application\/(ld\+)?json)/;

/** Fast above all: this runs on the thread that everything else in the test waits for. */
const ENCODERS = {
  gzip: (bytes: Uint8Array) => gzipSync(bytes, { level: 1 }),
  deflate: (bytes: Uint8Array) => deflateSync(bytes, { level: 1 }),
  br: (bytes: Uint8Array) => brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 1 } }),
  zstd: (bytes: Uint8Array) => zstdCompressSync(bytes),
};

export class FakeHomeserver implements AsyncDisposable {
  readonly serverName: string;
  /** What came, in order. */
  readonly requests: ReceivedRequest[] = [];
  /** Connections that ever came. */
  accepted = 0;
  /** What it says of a token's user, whose name is the token. */
  whoami: (userId: string) => unknown = (userId) => ({ user_id: userId, device_id: "DEVICE", is_guest: false });
  /** Applied to every media and path, before any media's own. */
  behaviour: Behaviour = {};
  /** Awaited between the look at a token and the media. */
  hold: Promise<void> | undefined;
  /** Uploads that came whole, in order. */
  readonly uploads: ReceivedUpload[] = [];
  /** Bytes of bodies of uploads that have come, whole or not. */
  uploadedBytes = 0;
  /** Says nothing of it, if undefined. */
  maxUploadSize: number | undefined = 209_715_200;
  uploadBehaviour: UploadBehaviour = {};
  /** Whether the bytes of uploads are kept, and can be downloaded. */
  keepsUploads = true;
  /** Served at /.well-known/matrix/client as it is (a string) or as JSON; 404 if undefined. */
  wellKnown: unknown;

  readonly #server: Server;
  readonly #options: FakeHomeserverOptions;
  readonly #tokens = new Map<string, TokenState>();
  readonly #media = new Map<string, StoredMedia>();
  #url = "";

  private constructor(options: FakeHomeserverOptions) {
    this.#options = options;
    this.serverName = options.serverName ?? "example.org";
    const listener = (request: IncomingMessage, response: ServerResponse): void => {
      this.#answer(request, response).catch((error: unknown) => response.destroy(error instanceof Error ? error : undefined));
    };
    this.#server = options.tls === undefined ? createServer(listener) : createTlsServer(options.tls, listener);
    this.#server.on("connection", () => this.accepted++);
  }

  /** Listens on a free port of 127.0.0.1. */
  static async start(options: FakeHomeserverOptions = {}): Promise<FakeHomeserver> {
    const homeserver = new FakeHomeserver(options);
    homeserver.#server.listen(0, "127.0.0.1");
    await once(homeserver.#server, "listening");
    homeserver.#url = `${options.tls === undefined ? "http" : "https"}://127.0.0.1:${homeserver.port}`;
    return homeserver;
  }

  get url(): string {
    return this.#url;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Connections that are open now. */
  connections(): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.getConnections((error, count) => (error === null ? resolve(count) : reject(error)));
    });
  }

  /** Makes a token known. Sent as `Authorization: Bearer <token>`. */
  addToken(token: string, state: TokenState = "valid"): void {
    this.#tokens.set(token, state);
  }

  /** Stores media, or replaces it: the next request gets the new bytes. */
  put(mediaId: string, media: StoredMedia, serverName: string = this.serverName): { serverName: string; mediaId: string } {
    this.#media.set(`${serverName}/${mediaId}`, media);
    return { serverName, mediaId };
  }

  /** Removes media: 404 from now on. */
  remove(mediaId: string, serverName: string = this.serverName): void {
    this.#media.delete(`${serverName}/${mediaId}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? "";
    if (this.#options.record !== false) this.requests.push({ method: request.method ?? "", path, headers: request.headers });
    if (misbehavesInstead(this.behaviour, response)) return;

    const url = new URL(path, this.#url);
    if (url.pathname === "/.well-known/matrix/client") return this.#answerWellKnown(response);
    if (url.pathname === "/_matrix/client/v3/account/whoami") return this.#answerWhoami(request, response);
    if (url.pathname === "/_matrix/media/v1/create" && request.method === "POST") return this.#answerCreate(request, response);
    if (UPLOAD_PATH.test(url.pathname)) return this.#takeUpload(url, request, response);
    const question = QUESTION_PATH.exec(url.pathname)?.[1];
    if (question !== undefined && request.method === "GET") return this.#answerQuestion(question, url.searchParams, request, response);
    const [, api = "", endpoint, server = "", mediaId = ""] = MEDIA_PATH.exec(url.pathname) ?? [];
    const authenticated = api === "client/v1/media";
    const known = authenticated || (this.#options.unauthenticatedApis ?? ["v3", "v1", "r0"]).some((version) => api === `media/${version}`);
    if (!known || request.method !== "GET") return sendError(response, 404, "M_UNRECOGNIZED", "Unrecognized request");

    const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? "")?.[1];
    if (authenticated && !this.#acceptsToken(token, response)) return;
    await this.hold;
    for (const [name, value] of Object.entries(endpoint === "download" ? SANDBOX_HEADERS : THUMBNAIL_HEADERS))
      response.setHeader(name, value);
    if (endpoint === "thumbnail" && !hasSize(url.searchParams, response)) return;
    const media = this.#media.get(`${decodeURIComponent(server)}/${decodeURIComponent(mediaId)}`);
    if (!authenticated && media?.unauthenticated !== true) return sendError(response, 404, "M_NOT_FOUND", "Not found");
    if (media === undefined) return sendError(response, 404, "M_NOT_FOUND", `Not found '${url.pathname}'`);
    if (authenticated && media.readers !== undefined && !media.readers.includes(token ?? "")) {
      return sendError(response, 403, "M_FORBIDDEN", "You are not allowed to see this media");
    }
    if (media.behaviour !== undefined && misbehavesInstead(media.behaviour, response)) return;
    if (media.pending === true) return sendError(response, 504, "M_NOT_YET_UPLOADED", "Media has not been uploaded yet");
    if (endpoint === "thumbnail" && media.thumbnail === undefined && !(media.contentType ?? "").startsWith("image/")) {
      return sendError(
        response,
        400,
        "M_UNKNOWN",
        `Cannot find any thumbnails for the requested media ('${url.pathname}').${NO_THUMBNAIL}`,
      );
    }
    const { bytes, contentType } = endpoint === "thumbnail" && media.thumbnail !== undefined ? media.thumbnail : media;
    await sendMedia(response, bytes, { ...this.behaviour, ...media.behaviour }, headersOf(contentType, media.contentDisposition));
  }

  #answerWellKnown(response: ServerResponse): void {
    if (this.wellKnown === undefined) return sendError(response, 404, "M_NOT_FOUND", "No well-known file");
    response.writeHead(200, { "content-type": "application/json" });
    response.end(typeof this.wellKnown === "string" ? this.wellKnown : JSON.stringify(this.wellKnown));
  }

  #answerWhoami({ headers }: IncomingMessage, response: ServerResponse): void {
    const token = /^Bearer (.+)$/.exec(headers.authorization ?? "")?.[1];
    if (!this.#acceptsToken(token, response)) return;
    response.writeHead(200, { ...CORS_HEADERS, "content-type": "application/json" });
    response.end(JSON.stringify(this.whoami(`@${token}:${this.serverName}`)));
  }

  #answerCreate(request: IncomingMessage, response: ServerResponse): void {
    if (!this.#acceptsToken(tokenOf(request), response)) return;
    const { mediaId } = this.put(randomBytes(12).toString("hex"), { bytes: Buffer.alloc(0), pending: true });
    response.writeHead(200, { ...CORS_HEADERS, "content-type": "application/json" });
    response.end(JSON.stringify({ content_uri: `mxc://${this.serverName}/${mediaId}`, unused_expires_at: Date.now() + 86_400_000 }));
  }

  async #takeUpload(url: URL, request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (!this.#acceptsToken(tokenOf(request), response)) return;
    const [, server, id] = UPLOAD_PATH.exec(url.pathname) ?? [];
    if (request.method !== (id === undefined ? "POST" : "PUT")) return sendError(response, 405, "M_UNRECOGNIZED", "Unrecognized request");
    const created = id === undefined ? undefined : this.#media.get(`${decodeURIComponent(server ?? "")}/${decodeURIComponent(id)}`);
    if (id !== undefined && created === undefined) return sendError(response, 404, "M_NOT_FOUND", "Unknown media ID");
    if (created !== undefined && created.pending !== true) {
      return sendError(response, 409, "M_CANNOT_OVERWRITE_MEDIA", "Media ID already has content");
    }
    const { answer, after, hangUpAfter, stall, hold } = this.uploadBehaviour;
    const hash = createHash("sha256");
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      size += chunk.length;
      this.uploadedBytes += chunk.length;
      if (hangUpAfter !== undefined && size >= hangUpAfter) return void response.destroy();
      if (answer !== undefined && after !== undefined && size >= after) return sendAnswerEarly(request, response, answer);
      hash.update(chunk);
      if (this.keepsUploads) chunks.push(chunk);
    }
    const bytes = Buffer.concat(chunks);
    const { method = "", headers } = request;
    this.uploads.push({ method, path: url.pathname + url.search, headers, size, sha256: hash.digest("hex"), bytes });
    await hold;
    if (stall === true) return;
    if (answer !== undefined) return sendAnswer(response, answer);
    const contentType = headers["content-type"];
    const { serverName, mediaId } = this.put(
      id === undefined ? randomBytes(12).toString("hex") : decodeURIComponent(id),
      { bytes, ...(contentType === undefined ? {} : { contentType }) },
      server === undefined ? this.serverName : decodeURIComponent(server),
    );
    response.writeHead(200, { ...CORS_HEADERS, "content-type": "application/json" });
    response.end(JSON.stringify(id === undefined ? { content_uri: `mxc://${serverName}/${mediaId}` } : {}));
  }

  #answerQuestion(question: string, query: URLSearchParams, request: IncomingMessage, response: ServerResponse): void {
    if (!this.#acceptsToken(tokenOf(request), response)) return;
    const url = query.get("url");
    if (question === "preview_url" && url === null)
      return sendError(response, 400, "M_MISSING_PARAM", "Missing required string query parameter url");
    response.writeHead(200, {
      ...CORS_HEADERS,
      "content-type": "application/json",
      "cache-control": "no-cache, no-store, must-revalidate",
    });
    response.end(JSON.stringify(question === "config" ? { "m.upload.size": this.maxUploadSize } : { "og:title": `About ${url}` }));
  }

  #acceptsToken(token: string | undefined, response: ServerResponse): boolean {
    if (token === undefined) {
      sendError(response, 401, "M_MISSING_TOKEN", "Missing access token");
      return false;
    }
    const state = this.#tokens.get(token);
    if (state === "valid") return true;
    if (state === "expired") sendError(response, 401, "M_UNKNOWN_TOKEN", "Access token has expired", { soft_logout: true });
    else sendError(response, 401, "M_UNKNOWN_TOKEN", "Invalid access token passed.", { soft_logout: false });
    return false;
  }
}

function tokenOf({ headers }: IncomingMessage): string | undefined {
  return /^Bearer (.+)$/.exec(headers.authorization ?? "")?.[1];
}

function headersOf(contentType = "application/octet-stream", contentDisposition: string | undefined): OutgoingHttpHeaders {
  const disposition = contentDisposition ?? (INLINE.test(contentType) ? "inline" : "attachment");
  return { ...MEDIA_HEADERS, "content-type": contentType, "content-disposition": disposition };
}

function sendError(response: ServerResponse, status: number, errcode: string, error: string, more: Record<string, unknown> = {}): void {
  response.writeHead(status, {
    ...CORS_HEADERS,
    "content-type": "application/json",
    "cache-control": "no-cache, no-store, must-revalidate",
  });
  response.end(JSON.stringify({ errcode, error, ...more }));
}

/** Both are asked for; if not, that is answered. */
function hasSize(query: URLSearchParams, response: ServerResponse): boolean {
  for (const name of ["width", "height"]) {
    const value = query.get(name);
    if (value !== null && /^[0-9]+$/.test(value)) continue;
    if (value === null) sendError(response, 400, "M_MISSING_PARAM", `Missing required integer query parameter ${name}`);
    else sendError(response, 400, "M_INVALID_PARAM", `Query parameter ${name} must be an integer`);
    return false;
  }
  return true;
}

/** Whether the behaviour has taken the place of any answer. */
function misbehavesInstead({ answer, redirectTo, stall, hangUp }: Behaviour, response: ServerResponse): boolean {
  if (hangUp === true) response.destroy();
  else if (stall === "headers") return true;
  else if (redirectTo !== undefined) response.writeHead(answer?.status ?? 307, { ...answer?.headers, location: redirectTo }).end();
  else if (answer !== undefined) sendAnswer(response, answer);
  else return false;
  return true;
}

function sendAnswer(response: ServerResponse, { status, body, headers }: NonNullable<Behaviour["answer"]>): void {
  const raw = body instanceof Uint8Array || typeof body === "string";
  response.writeHead(status, { "content-type": raw ? "application/octet-stream" : "application/json", ...headers });
  if (body === undefined) response.end();
  else response.end(raw ? body : JSON.stringify(body));
}

/** The connection stays until the client has seen the answer: with bytes left unread, closing it would take the answer back. */
async function sendAnswerEarly(
  request: IncomingMessage,
  response: ServerResponse,
  { status, body, headers }: NonNullable<Behaviour["answer"]>,
): Promise<void> {
  const text = JSON.stringify(body);
  response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(text), ...headers });
  response.write(text);
  request.resume();
  await once(request, "close");
  response.end();
}

async function sendMedia(response: ServerResponse, plain: Uint8Array, behaviour: Behaviour, headers: OutgoingHttpHeaders): Promise<void> {
  const { contentEncoding, chunked, cutAfter, drip, partial } = behaviour;
  const body = contentEncoding === undefined ? plain : ENCODERS[contentEncoding](plain);
  response.writeHead(partial === true ? 206 : 200, {
    ...headers,
    ...(chunked === true ? {} : { "content-length": body.length }),
    ...(contentEncoding === undefined ? {} : { "content-encoding": contentEncoding }),
    ...(partial === true ? { "content-range": `bytes 0-${body.length - 1}/${body.length * 2}` } : {}),
    ...behaviour.headers,
  });
  const sent = behaviour.stall === "body" ? 0 : Math.min(cutAfter ?? body.length, behaviour.stallAfter ?? body.length);
  if (sent === body.length && drip === undefined) {
    response.end(body);
    return;
  }
  response.flushHeaders();
  const step = drip?.bytes ?? body.length;
  for (let offset = 0; offset < sent && !response.destroyed; offset += step) {
    response.write(body.subarray(offset, Math.min(offset + step, sent)));
    if (drip !== undefined) await sleep(drip.pause, undefined, { ref: false });
  }
  if (cutAfter !== undefined) {
    // What was written is on its way before the connection ends.
    await new Promise<void>((resolve) => response.write("", () => resolve()));
    response.socket?.end();
  } else if (sent === body.length) response.end();
  else if (behaviour.resume !== undefined) {
    await behaviour.resume;
    response.end(body.subarray(sent));
  }
}
