/** Where media comes from, and what is asked of it. */

/** An `mxc://` URI's two parts, checked against the specification's grammar. */
export interface Mxc {
  readonly serverName: string;
  readonly mediaId: string;
}

export interface ThumbnailParameters {
  readonly width: number;
  readonly height: number;
  readonly method: "crop" | "scale";
  readonly animated?: boolean;
}

export type MediaVariant = { readonly kind: "download" } | ({ readonly kind: "thumbnail" } & ThumbnailParameters);

/** The homeserver's own APIs for media: with a token since Matrix 1.11, and those from before, which may give out old media only. */
export type MediaApi = "client/v1/media" | "media/r0" | "media/v1" | "media/v3";

/** How a client of the homeserver's own API asked. It is part of its request, and says nothing of the media. */
export interface AskedEndpoint {
  readonly api: MediaApi;
  /** Milliseconds that the client gives media which is not there yet. */
  readonly timeoutMs?: number;
  /** Whether media of other servers is to be fetched. */
  readonly allowRemote?: boolean;
}

/** What is asked beside media, written anew from what the client asked: nothing of its path gets there, and of its query only this. */
export interface ForwardedRequest {
  readonly api: MediaApi;
  readonly endpoint: "config" | "preview_url";
  readonly query: Readonly<Record<string, string>>;
}

/** The homeserver's own answer to what is not about a media's bytes, for the client. */
export interface HomeserverAnswer {
  readonly status: number;
  /** A JSON object: of an error, the standard one. */
  readonly body: Buffer;
  /** When to ask again: seconds, or a date (RFC 9110, section 10.2.3). */
  readonly retryAfter: string | undefined;
}

/** What the client sent that the homeserver needs to see. Never logged. */
export interface Credentials {
  /** The client's Authorization header, whole. */
  readonly authorization: string | undefined;
  /** The client's own values of the headers that the configuration lets through, by lower-case name. */
  readonly forwarded: Readonly<Record<string, string>>;
}

/** Bytes on their way here, for one reader. Leaving before their end destroys them. */
export interface MediaBody extends AsyncIterable<Buffer> {
  /** Ends the exchange; who reads on gets the error, or one that says that the bytes were cut short. No effect after the last byte. */
  destroy(error?: Error): void;
}

/** A homeserver's yes: status 200, headers checked, body still to be read. */
export interface FetchedMedia {
  /** Headers as the homeserver sent them: they are made safe where they leave. */
  readonly contentType: string | undefined;
  readonly contentDisposition: string | undefined;
  /** Bytes that `body` will yield, if they are known beforehand. */
  readonly size: number | undefined;
  /**
   * The bytes, any Content-Encoding undone within limits. Fails with GatewayError `homeserver_failed` when they end early or
   * stall.
   */
  readonly body: MediaBody;
}

export interface MediaSource extends AsyncDisposable {
  /**
   * Asks the homeserver on behalf of this client.
   * @param asked at this very endpoint, whether there is a token or not; without it, the token decides which one is asked.
   * @throws GatewayError `missing_token`, `unknown_token`, `not_found`, `not_yet_uploaded`, `rate_limited`, `homeserver_failed`; the
   *   signal's reason.
   */
  fetch(mxc: Mxc, variant: MediaVariant, credentials: Credentials, signal: AbortSignal, asked?: AskedEndpoint): Promise<FetchedMedia>;
}

export interface Forwarder {
  /**
   * Asks the configured homeserver on behalf of this client.
   * @throws GatewayError `homeserver_failed` for any answer that is not what it should be, `missing_token`; the signal's reason.
   */
  forward(request: ForwardedRequest, credentials: Credentials, signal: AbortSignal): Promise<HomeserverAnswer>;
}

/** Who a request comes from and goes to, as far as the configured homeserver tells. */
export interface Identifier {
  /**
   * The Matrix user ID whose token this is; undefined when there is no token, or no configured homeserver that would see it.
   * @throws GatewayError as `MediaSource.fetch`; the signal's reason.
   */
  whoami(credentials: Credentials, signal: AbortSignal): Promise<string | undefined>;
  /** The address that the configured homeserver's name has at the moment; undefined when there is none. */
  address(): Promise<string | undefined>;
}
