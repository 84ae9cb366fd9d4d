/** Where media comes from, and what is asked of it. */
import type { Readable } from "node:stream";

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

/** What the client sent that the homeserver needs to see. Never logged. */
export interface Credentials {
  /** The client's Authorization header, whole. */
  readonly authorization: string | undefined;
  /** The client's own values of the headers that the configuration lets through, by lower-case name. */
  readonly forwarded: Readonly<Record<string, string>>;
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
   * stall. Destroying it ends the exchange.
   */
  readonly body: Readable;
}

export interface MediaSource extends AsyncDisposable {
  /**
   * Asks the homeserver on behalf of this client.
   * @throws GatewayError `missing_token`, `unknown_token`, `not_found`, `not_yet_uploaded`, `rate_limited`, `homeserver_failed`; the
   *   signal's reason.
   */
  fetch(mxc: Mxc, variant: MediaVariant, credentials: Credentials, signal: AbortSignal): Promise<FetchedMedia>;
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
