import type { IcapLimits } from "../codec/limits.ts";
import type { Verdict } from "../verdict.ts";

export interface IcapServiceOptions {
  /** `icap://host[:port]/path?query`; port 1344 by default. */
  readonly url: string;
  /** Connections at most; OPTIONS' Max-Connections may lower it. 16 by default. */
  readonly maxConnections?: number;
  /**
   * Of these, how many ordinary scans leave free for priority scans. 1 by default. One connection is always left to ordinary scans; where
   * it is the only one, priority scans go to the front of the line.
   */
  readonly reservedConnections?: number;
  /**
   * `never` by default: a preview lets a server acquit bytes that it has not seen. `required`: what OPTIONS asks for is sent as a
   * preview; a 204 that comes before the rest was sent is an error, never clean.
   */
  readonly preview?: "never" | "required";
  /** Milliseconds. */
  readonly timeouts?: Partial<IcapTimeouts>;
  readonly limits?: Partial<IcapLimits>;
  /** Milliseconds since any fixed moment; `performance.now` by default. */
  readonly clock?: () => number;
}

/** Milliseconds. */
export interface IcapTimeouts {
  /** To connect, all addresses together. 5000 by default. */
  readonly connect: number;
  /** Without progress while writing. 30000 by default. */
  readonly write: number;
  /** From the last byte sent (or the preview's last) to the end of the answer's head, and between two reads of its body. 120000 by default. */
  readonly answer: number;
  /** How long an idle connection is kept. 30000 by default. */
  readonly idle: number;
}

export interface IcapScanRequest {
  /**
   * A pass over the bytes, called once for each try; yields exactly `size` bytes. Chunks must stay as they are once yielded. When a scan
   * ends early the iterator's `return` is called; an iterator that can hang must watch `signal` itself.
   */
  readonly body: () => AsyncIterable<Uint8Array>;
  readonly size: number;
  readonly contentType: string;
  /** The last segment of the URL that the server sees. */
  readonly fileName: string;
  /** May use the reserved connections; goes to the front of the line. */
  readonly priority?: boolean;
  /** Ends the scan at every step and destroys its connection. */
  readonly signal: AbortSignal;
}

export interface IcapScanResult {
  readonly verdict: Verdict;
  /** Of this answer, quotes stripped; else of OPTIONS. */
  readonly isTag: string | undefined;
  readonly icapStatus: number;
}

/** What OPTIONS said (RFC 3507 section 4.10). */
export interface ServiceInfo {
  /** Quotes stripped. */
  readonly isTag: string | undefined;
  /** Upper case; empty when the server didn't say. */
  readonly methods: readonly string[];
  /** Bytes; undefined when the service wants no preview. */
  readonly preview: number | undefined;
  readonly allow204: boolean;
  readonly maxConnections: number | undefined;
  /** Seconds that this holds; what the server said, within 1 s and 1 day, or 60 s when it said nothing. */
  readonly optionsTtl: number;
  /** The server's description of itself, as it came. */
  readonly service: string | undefined;
}

export interface PoolStats {
  /** Connections, those being made included. */
  readonly open: number;
  readonly idle: number;
  /** Scans (and OPTIONS) that hold a connection. */
  readonly busy: number;
  readonly waiting: number;
}
