import type { HttpHead, HttpResponseHead } from "../codec/head.ts";
import type { HeaderBlock } from "../codec/headers.ts";
import type { HeaderFields } from "../codec/serialize.ts";

/** What OPTIONS answers (RFC 3507 section 4.10.2). */
export interface ServiceTable {
  /** Without quotes; a function where it changes. Every answer carries it. */
  readonly isTag: string | (() => string);
  /** `RESPMOD` alone by default. */
  readonly methods?: readonly ("REQMOD" | "RESPMOD")[];
  readonly description?: string;
  /** Bytes; no preview by default. */
  readonly preview?: number;
  /** Seconds; 3600 by default. */
  readonly optionsTtl?: number;
  readonly maxConnections?: number;
  /** True by default. */
  readonly allow204?: boolean;
}

export interface IcapRequest {
  readonly method: "REQMOD" | "RESPMOD";
  /** The path without its first slash. */
  readonly service: string;
  /** Without the question mark. */
  readonly query: string;
  readonly headers: HeaderBlock;
  readonly httpRequest: HttpHead | undefined;
  readonly httpResponse: HttpResponseHead | undefined;
  /** The client takes a 204 outside a preview. */
  readonly allow204: boolean;
  /** Bytes of the preview that the client announced; undefined when it sends none. */
  readonly preview: number | undefined;
  /**
   * The body, to be read once, as it comes. Reading past a preview asks the client for the rest (100 Continue); leaving off is fine at
   * any moment.
   */
  readonly body: AsyncIterable<Uint8Array>;
  /** Aborted when the client goes. */
  readonly signal: AbortSignal;
}

export interface HttpMessage {
  /** Such as `HTTP/1.1 403 Forbidden`. */
  readonly startLine: string;
  readonly fields: HeaderFields;
  readonly body?: Uint8Array | AsyncIterable<Uint8Array>;
}

export interface IcapReply {
  readonly status: number;
  /** Besides those that every answer has. */
  readonly fields?: HeaderFields;
  /** The encapsulated response. */
  readonly http?: HttpMessage;
}

export interface IcapHandler {
  readonly table: ServiceTable;
  /** A rejection is answered with ICAP 500. */
  handle(request: IcapRequest): Promise<IcapReply>;
}
