import type { HttpHead, HttpResponseHead, StatusLine } from "../codec/head.ts";
import type { HeaderBlock } from "../codec/headers.ts";
import type { MessageHead } from "../codec/parser.ts";
import type { ReturnedBody } from "./echo.ts";

/** A final answer, read as far as it counts. */
export interface Answer {
  readonly status: number;
  /** Those of the trailer included. */
  readonly headers: HeaderBlock;
  readonly httpRequest: HttpHead | undefined;
  readonly http: HttpResponseHead | undefined;
  /** Whether a body came back; `nothing` is nothing for the nothing that was sent. */
  readonly body: "none" | "nothing" | "some";
  /** That body, if all of it came back, in the section that it was sent in, after all was sent: it may be the very same. */
  readonly returned: WholeBody | undefined;
  /**
   * What had been handed to the system when the answer's first byte came: `all` with the last chunk; `preview`: a whole preview that was not the
   * whole body, and the server did not ask for the rest; `part`: less than that.
   */
  readonly sent: "all" | "preview" | "part";
  /**
   * What went wrong behind its ICAP head, be it the server's fault or that of who takes the body. Only what the heads say against the file may count then; otherwise
   * this is to be thrown.
   */
  readonly broken: Error | undefined;
  /** Both messages are complete and the server keeps the connection open. */
  readonly reusable: boolean;
}

export interface WholeBody {
  readonly size: number;
  /** Of all of it, or of as many bytes as were sent, if it is longer. */
  readonly sha256: Buffer;
}

/** In which section the body was sent: an echo comes back in the same one. */
export type SentSection = "req-body" | "res-body";

/** How an exchange stood when its answer ended, or was given up. */
export interface AnswerState {
  readonly head: MessageHead<StatusLine>;
  readonly trailer: HeaderBlock;
  /** The last chunk of its body, if it has one, has come, and nothing is wrong. */
  readonly complete: boolean;
  readonly broken: Error | undefined;
  readonly sent: Answer["sent"];
  readonly section: SentSection;
  /** Bytes of the sent body. */
  readonly size: number;
  readonly returned: ReturnedBody;
  readonly reusable: boolean;
}

export function answerOf(state: AnswerState): Answer {
  const { head, returned } = state;
  const whole = state.complete && state.sent === "all" && head.body === state.section;
  return {
    status: head.start.status,
    headers: head.headers.with(state.trailer),
    httpRequest: head.httpRequest,
    http: head.httpResponse,
    body: bodyOf(state),
    returned: whole ? { size: returned.size, sha256: returned.digest() } : undefined,
    sent: state.sent,
    broken: state.broken,
    reusable: state.reusable,
  };
}

function bodyOf({ head, section, size }: AnswerState): Answer["body"] {
  if (head.body === undefined) return "none";
  if (head.body !== "null-body") return "some";
  const echoed = section === "res-body" ? head.httpResponse : head.httpRequest;
  return size === 0 && echoed !== undefined ? "nothing" : "none";
}

/** Whether the server leaves the connection open behind this head. */
export function keepsOpen(head: MessageHead<StatusLine>): boolean {
  // A 200 without an Encapsulated header may have a body all the same: where it ends can't be told.
  const framed = head.body !== undefined || head.start.status === 204;
  return framed && !head.headers.lists("connection", "close");
}
