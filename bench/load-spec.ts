/** What the load generator is told, and what it tells. */

/** Of the content-scanner API; and `upload`, a homeserver's. */
export type Endpoint = "download" | "thumbnail" | "scan" | "download_encrypted" | "scan_encrypted" | "scan_file" | "upload";

export interface LoadSpec {
  /** What paths begin with: of the content-scanner API, or of a homeserver's media. Connections take turns at them. */
  readonly targets: readonly string[];
  readonly endpoint: Endpoint;
  /** Bytes of each media. */
  readonly size: number;
  /** Tells this load's media from those of others; up to 8 of a-z and 0-9. */
  readonly series: string;
  /** How many media are asked for in turn; without it, each request is for another one. */
  readonly media?: number;
  /** The gateway's: request bodies are encrypted to it. Only with `media`. */
  readonly publicKey?: string;
  /** Requests at once, each on a connection that is kept, with an access token and a forwarded address of its own. */
  readonly connections: number;
  /** Milliseconds, of which the first ones are not measured; or requests in all. */
  readonly until: { readonly warmUp: number; readonly time: number } | { readonly requests: number };
}

/** Milliseconds at the middle and near the end of all requests. */
export interface Spread {
  readonly p50: number;
  readonly p99: number;
}

export interface LoadResult {
  /** Whole and right answers. */
  readonly requests: number;
  /** Of media or verdicts in those; of what was uploaded. */
  readonly bytes: number;
  /** Milliseconds. */
  readonly elapsed: number;
  /** From the request to the last byte of its answer. */
  readonly latency: Spread;
  /** From the request to the first byte of the body. */
  readonly firstByte: Spread;
  /** All other answers, and connections that broke; none of them counts above. */
  readonly errors: number;
  /** What some of them were. */
  readonly examples: readonly string[];
}

/** From the process: what is measured begins now; and how it went. */
export type LoadMessage = { readonly measuring: true } | { readonly result: LoadResult } | { readonly failure: string };
