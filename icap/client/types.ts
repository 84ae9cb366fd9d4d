import type { SecureVersion } from "node:tls";
import type { IcapLimits } from "../codec/limits.ts";
import type { HeaderFields } from "../codec/serialize.ts";
import type { ProfileName } from "../profiles.ts";
import type { Verdict } from "../verdict.ts";

/** Of one service. All are checked when it is made: a TypeError names the one that is wrong. */
export interface IcapServiceOptions {
  /**
   * `icap://host[:port]/path?query`, port 1344 by default, or `icaps://` (TLS), port 11344. Without a path, the profile's.
   */
  readonly url: string;
  /** Whose answers these are; `auto` reads what any vendor says, in the strictest sense. `auto` by default. */
  readonly profile?: ProfileName;
  /** The profile's by default, which is RESPMOD for most. */
  readonly method?: IcapMethod;
  /** Names of header fields that mean "blocked" whatever their value, beside those of the profile. */
  readonly blockedBy?: readonly string[];
  /**
   * Connections at most; OPTIONS' Max-Connections may lower it. 16 by default. Each service object counts its own: where a process has several
   * for one server, their numbers add up.
   */
  readonly maxConnections?: number;
  /**
   * Of these, how many ordinary scans leave free for priority scans. 1 by default. One connection is always left to ordinary scans; where
   * it is the only one, priority scans go to the front of the line.
   */
  readonly reservedConnections?: number;
  /** Ordinary scans that may wait for a connection; the next one fails with `busy`. 256 by default. */
  readonly maxWaiting?: number;
  /**
   * A preview lets a server acquit bytes that it has not seen, so `never` is the default. `required`: what OPTIONS asks for is
   * sent as a preview; a 204 that comes before the rest was sent is an error, never clean. `trusted`: such a 204 is clean. A profile of a server
   * that acquits whatever is previewed takes `never` alone.
   */
  readonly preview?: "never" | "required" | "trusted";
  /**
   * What becomes of OPTIONS' Transfer-Preview, -Ignore and -Complete (lists of file name extensions). `ignored` by default. `trusted`: a file with
   * an extension to be ignored is clean unseen (`how: "ignored"`), and only those to be previewed are, where `preview` allows it.
   */
  readonly transferLists?: "ignored" | "trusted";
  /** For `icaps://` alone; by default the system's authorities are believed, and no certificate is shown. */
  readonly tls?: IcapTls;
  /** Sent with every request as `Proxy-Authorization: Basic` (RFC 7617). Neither may hold control characters, nor the name a colon. */
  readonly credentials?: { readonly username: string; readonly password: string };
  /** Fields of the ICAP head of every request, OPTIONS included, beside the client's own; printable ASCII. */
  readonly fields?: HeaderFields;
  /** Milliseconds. */
  readonly timeouts?: Partial<IcapTimeouts>;
  readonly limits?: Partial<IcapLimits>;
  /**
   * Called each time bytes come that nobody asked for: behind a whole answer, or on a connection on which nothing is under way (ICAP 408 apart). Any 204 on
   * a kept connection may have been a late answer to another file. From then on no connection is kept for 10 minutes. Must not throw.
   */
  readonly onUnsolicited?: () => void;
  /** Milliseconds since any fixed moment; `performance.now` by default. */
  readonly clock?: () => number;
}

/**
 * As what the file is sent: RESPMOD as the body of a response (a download), REQMOD as that of a POST (an upload), which is what many DLP
 * appliances look at.
 */
export type IcapMethod = "RESPMOD" | "REQMOD";

/** Whom to believe, and as whom to come. The server's name is always checked. */
export interface IcapTls {
  /** PEM; in place of the authorities that Node.js trusts. */
  readonly ca?: string;
  /** The client's own certificate and its key, PEM. */
  readonly cert?: string;
  readonly key?: string;
  /** What the certificate must be for, and what is asked for by SNI; the URL's host by default. */
  readonly serverName?: string;
  /** `TLSv1.2` by default. */
  readonly minVersion?: Extract<SecureVersion, "TLSv1.2" | "TLSv1.3">;
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
  /**
   * A whole scan, from the connection that it got to the end of the answer, with all that the body's source and `returned` take. No limit
   * (`Infinity`) by default: the caller's signal is one.
   */
  readonly total: number;
}

/** One file, and what is said of it. */
export interface IcapScanRequest {
  /**
   * A pass over the bytes; yields exactly `size` of them. Called for each try, and again to see whether a body that comes back is the very same. Chunks
   * must stay as they are once yielded. When a scan ends early the iterator's `return` is called; an iterator that can hang must watch `signal` itself.
   */
  readonly body: () => AsyncIterable<Uint8Array>;
  /** Bytes. */
  readonly size: number;
  /** A media type; printable ASCII, at most 255 characters. */
  readonly contentType: string;
  /** The last segment of the URL that the server sees, which encodes it; 1 to 255 characters, no control characters. */
  readonly fileName: string;
  /** Fields of the ICAP head beside the client's own, such as X-Client-IP; values are printable ASCII in one line. A TypeError for the client's own. */
  readonly fields?: HeaderFields;
  /**
   * Gets the body that comes back after all was sent, piece by piece, and is waited for; the server's time stands still meanwhile. It may turn
   * out to be the one that was sent, a block page, or cut short: only `replacement` says that it is a file. What it throws ends the scan.
   */
  readonly returned?: (bytes: Uint8Array) => Promise<void>;
  /** May use the reserved connections; goes to the front of the line. */
  readonly priority?: boolean;
  /** Ends the scan at every step and destroys its connection. */
  readonly signal: AbortSignal;
}

/** What a service answered. */
export interface IcapScanResult {
  readonly verdict: Verdict;
  /** Of this answer, quotes stripped; else of OPTIONS. */
  readonly isTag: string | undefined;
  /** Undefined when the file was not sent (`ignored`). */
  readonly icapStatus: number | undefined;
  /**
   * Set when the server sent a whole other body in place of the file (`modified`, RESPMOD, with the HTTP status that was sent): all of
   * it went to `request.returned`. Neither empty, nor the beginning of the file, nor all of the file and more, nor of another length than its own head says, nor
   * encoded.
   * `contentType` is what the server says of it, when that is printable and no longer than 255 characters.
   */
  readonly replacement: { readonly size: number; readonly contentType: string | undefined } | undefined;
  /**
   * Set when the file is blocked (`infected`) by no more than a response in answer to REQMOD: the reason is in its body, a page for people, which went to
   * `request.returned` as far as it came after all was sent. `contentType` as above.
   */
  readonly page?: { readonly contentType: string | undefined };
}

/** What OPTIONS said (RFC 3507 section 4.10). */
export interface ServiceInfo {
  /** Quotes stripped. */
  readonly isTag: string | undefined;
  /** In upper case; empty when the server didn't say. */
  readonly methods: readonly string[];
  /** Bytes; undefined when the service wants no preview. */
  readonly preview: number | undefined;
  /** The service answers 204 outside a preview as well. */
  readonly allow204: boolean;
  /** Undefined when the server didn't say, or said 0. */
  readonly maxConnections: number | undefined;
  /** Seconds that this holds; what the server said, within 1 s and 1 day, or 60 s when it said nothing. */
  readonly optionsTtl: number;
  /** Names of fields that the service wants to be told (X-Include), in lower case. */
  readonly include: readonly string[];
  /**
   * Transfer-Preview, -Ignore and -Complete: extensions in lower case, without the dot; `*` for all others. Nothing is to be ignored when any of
   * the lists can't be read whole.
   */
  readonly transfer: { readonly preview: readonly string[]; readonly ignore: readonly string[]; readonly complete: readonly string[] };
  /** The server's description of itself: 200 characters at most, a question mark in place of what is not printable ASCII. */
  readonly service: string | undefined;
}

/** A service's connections at this moment. */
export interface PoolStats {
  /** Connections at most, as far as known. */
  readonly limit: number;
  /** Connections, those being made included. */
  readonly open: number;
  readonly idle: number;
  /** Scans (and OPTIONS) that hold a connection. */
  readonly busy: number;
  /** Scans (and OPTIONS) that wait for one. */
  readonly waiting: number;
}
