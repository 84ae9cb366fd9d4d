/**
 * Why no verdict could be had. Stable; match by it, never by the message.
 * - `connect_failed`: no address took the connection (cause: the system's error).
 * - `timeout`: a step took longer than `timeouts` allows.
 * - `closed_early`: the connection ended before the answer did.
 * - `protocol`: the answer is not ICAP, or contradicts itself.
 * - `limit`: the answer is larger than `limits` allow.
 * - `body_size`: the body to be scanned was longer or shorter than announced.
 * - `wrong_service`: OPTIONS says that there is no such service, or that it doesn't do the method.
 * - `unavailable`: OPTIONS was refused for another reason.
 * - `busy`: too many scans wait for a connection already.
 * - `closed`: the service object was disposed of.
 */
export type IcapErrorCode =
  | "connect_failed"
  | "timeout"
  | "closed_early"
  | "protocol"
  | "limit"
  | "body_size"
  | "wrong_service"
  | "unavailable"
  | "busy"
  | "closed";

/** The message is one bounded line for an operator; what it quotes of a peer is escaped. */
export class IcapError extends Error {
  override readonly name = "IcapError";
  readonly code: IcapErrorCode;
  /**
   * Of a scan: its answer had begun (`100 Continue` is none), and could not be read or believed. What the server had to say of the file is not known, and may
   * have been "infected": it was there all the same, and is not to be taken for one that is away.
   */
  readonly answered: boolean;

  constructor(code: IcapErrorCode, message: string, options: ErrorOptions & { readonly answered?: boolean } = {}) {
    super(message, options);
    this.code = code;
    this.answered = options.answered ?? false;
  }
}
