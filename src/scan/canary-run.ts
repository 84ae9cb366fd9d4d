/** One round of canaries: what a service must catch, what it must let pass, and what its answers come to. */
import { type CanaryOutcome, complaintAbout, SHOWS_ALL } from "./canary-advice.ts";
import { type Canary, type CanaryKind, buildCanary, harmless } from "./canary-samples.ts";
import type { KeptOutcome } from "./scanner.ts";

/** What a service said of one canary: a verdict under a tag, that it failed, or (`unreachable`) nothing. */
export type CanaryAnswer =
  | { readonly outcome: CanaryOutcome; readonly tag: string }
  | { readonly outcome: "failed" | "unreachable"; readonly why: string };

/** `tags`: under which it answered. `doubts`: which of its verdicts may be wrong. */
export type RunResult =
  | { readonly kind: "passed"; readonly tags: ReadonlySet<string> }
  | { readonly kind: "broken" | "failed"; readonly why: string; readonly doubts: readonly KeptOutcome[] }
  | { readonly kind: "unreachable"; readonly why: string };

const LOOK_AT_ENGINE = "look whether the antivirus engine behind it runs, and into its log";

/** Sends a harmless file and all required canaries. `send` never rejects. */
export async function runCanaries(required: readonly CanaryKind[], send: (canary: Canary) => Promise<CanaryAnswer>): Promise<RunResult> {
  const tags = new Set<string>();
  const found: { failure?: string; complaint?: string; unreachable?: string } = {};
  // All of them, whatever the first ones came to: an engine that fails at one may acquit the next.
  for (const kind of ["harmless", ...required] as const) {
    const answer = await send(kind === "harmless" ? harmless() : buildCanary(kind));
    if ("why" in answer) {
      found[answer.outcome === "failed" ? "failure" : "unreachable"] ??= answer.why;
      if (answer.outcome === "unreachable") break;
      continue;
    }
    tags.add(answer.tag);
    const complaint = complaintAbout(kind, answer.outcome);
    if (complaint === undefined) continue;
    if (kind === "harmless") {
      // What a service without canaries (DLP) says of a harmless file is its own affair.
      if (required.length > 0) found.complaint = complaint;
    } else {
      const doubts: readonly KeptOutcome[] = found.complaint === undefined ? ["clean"] : ["clean", "infected"];
      return { kind: "broken", why: `${complaint}; ${SHOWS_ALL}`, doubts };
    }
  }
  const { complaint, failure, unreachable } = found;
  if (complaint !== undefined) return { kind: "broken", why: complaint, doubts: ["clean", "infected"] };
  if (failure !== undefined) {
    return { kind: "failed", why: `it could not scan its canaries (${failure}): ${LOOK_AT_ENGINE}`, doubts: ["clean"] };
  }
  return unreachable === undefined ? { kind: "passed", tags } : { kind: "unreachable", why: unreachable };
}
