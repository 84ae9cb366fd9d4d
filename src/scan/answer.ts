/** What a decision means for the one who asked. */
import { GatewayError } from "../errors.ts";
import type { FetchedMedia } from "../media/source.ts";
import type { PipelineEvents } from "./events.ts";
import type { Decision } from "./policy.ts";
import type { Commission, DeliverableMedia, MediaRequest, VerdictAnswer } from "./request.ts";

/** Characters of a threat's name that are told. */
const MAX_THREAT = 300;

/** Whoever asked, and for what: bytes to be handed on, the verdict, or that bytes of their own are handed on. */
export type Asked = Commission & { readonly want: MediaRequest["want"] | "upload" };

/** @throws GatewayError that a download gets instead of the media. */
export function verdictAnswer(request: Asked, decision: Decision, events: PipelineEvents): VerdictAnswer {
  note(request, decision);
  switch (decision.outcome) {
    case "clean":
      return { kind: "verdict", clean: true, info: "File is clean" };
    case "allowed":
      return { kind: "verdict", clean: true, info: "File was allowed by an administrator" };
    case "sanitised":
      return { kind: "verdict", clean: true, info: "File was sanitised by the scanner; a download gets what it made of it" };
    case "unscanned":
      events.unscanned(request, decision.why);
      return { kind: "verdict", clean: true, info: "File could not be scanned and is let through" };
    case "type_forbidden":
      throw new GatewayError("type_forbidden", { detail: decision.mime });
    case "infected":
      return refusal(request, infected(request, decision.threat));
    case "blocked":
      return refusal(request, new GatewayError("blocked", { detail: decision.reason }));
    case "modified":
      return refusal(request, new GatewayError("modified", { detail: decision.why }));
    case "unscannable":
      return refusal(request, new GatewayError("unscannable", { detail: decision.why }));
  }
}

/** A refusal of bytes is an error; of a verdict it is the verdict. */
export function refusal(request: Pick<Asked, "want">, error: GatewayError): VerdictAnswer {
  if (request.want !== "verdict") throw error;
  return { kind: "verdict", clean: false, info: error.info };
}

/** It is the uploader's own file, and may be blocked for another reason than a virus: so they are told which. */
function infected({ want }: Asked, threat: string): GatewayError {
  return new GatewayError("infected", {
    detail: threat,
    ...(want === "upload" ? { info: `The file is blocked: ${threat.slice(0, MAX_THREAT)}` } : {}),
  });
}

/** Media with the headers of this very request's answer from the homeserver. */
export function mediaAnswer(
  fetched: Pick<FetchedMedia, "contentType" | "contentDisposition">,
  size: number,
  body: AsyncIterable<Buffer>,
  close: () => Promise<void>,
): DeliverableMedia {
  return { kind: "media", contentType: fetched.contentType, contentDisposition: fetched.contentDisposition, size, body, close };
}

function note({ journal }: Commission, decision: Decision): void {
  journal.verdict = decision.outcome;
  if (decision.outcome === "infected") journal.threat = decision.threat;
  if ("scanner" in decision) journal.scanner = decision.scanner;
  if (decision.outcome === "type_forbidden") journal.mime = decision.mime;
}
