/** What http/ asks of the pipeline, and what comes back. */
import type { Attachment } from "../crypto/attachment.ts";
import type { AskedEndpoint, Credentials, MediaVariant, Mxc } from "../media/source.ts";
import type { RequestVerdict, VerdictOrigin } from "../observability/metrics.ts";
import type { Client } from "./admission.ts";
import type { ScanContext } from "./scanner.ts";

/** Media that is to be looked at, wherever it comes from. */
export interface Commission {
  /** Not known of what is only being uploaded. */
  readonly mxc: Mxc | undefined;
  /** Present for end-to-end encrypted media. */
  readonly attachment: Attachment | undefined;
  /** Who asks, where a scanner is to be told. */
  readonly context?: ScanContext;
  /** Filled in on the way, for the log. */
  readonly journal: Journal;
}

export interface MediaRequest extends Commission {
  readonly mxc: Mxc;
  readonly variant: MediaVariant;
  readonly credentials: Credentials;
  /** Where the client asked at an endpoint of the homeserver's own; without it, the token decides which of them is asked. */
  readonly asked?: AskedEndpoint;
  /** `block`: bytes of which no type is recognised, as of ciphertext, do not leave by this request. It is no verdict, and none is made of it. */
  readonly onOpaque?: "pass" | "block";
  /** `head` is `bytes` without the bytes: their size and headers, after the same checks. */
  readonly want: "bytes" | "head" | "verdict";
  readonly client: Client;
  /** The client's address as seen through trusted proxies; empty when it can't be told. */
  readonly address: string;
  /** Aborts when the client has gone. The scan goes on all the same. */
  readonly signal: AbortSignal;
}

/** The facts of one request that its log line tells. */
export interface Journal {
  /** Bytes as they came. */
  size?: number;
  /** Where the verdict came from. */
  via?: VerdictOrigin;
  verdict?: RequestVerdict;
  threat?: string;
  scanner?: string;
  mime?: string;
  downloadMs?: number;
  scanMs?: number;
}

/** Media that may be handed on. Whoever gets it must call `close`, read or not. */
export interface DeliverableMedia {
  readonly kind: "media";
  /** The homeserver's own headers for this request; made safe where they leave. */
  readonly contentType: string | undefined;
  readonly contentDisposition: string | undefined;
  readonly size: number;
  /** Throws when a byte is not what was scanned: nothing more may leave then, and the connection must be destroyed. */
  readonly body: AsyncIterable<Buffer>;
  close(): Promise<void>;
}

export interface VerdictAnswer {
  readonly kind: "verdict";
  readonly clean: boolean;
  readonly info: string;
}

export type MediaAnswer = DeliverableMedia | VerdictAnswer;
