import { IcapError, type IcapService } from "../../icap/index.ts";
import type { CanaryOutcome } from "../scan/canary-advice.ts";
import type { Canary } from "../scan/canary-samples.ts";
import type { Description } from "../scan/description.ts";
import { ANSWERED_BADLY, once } from "../scan/icap-canary.ts";
import { failureOf } from "./failure.ts";
import { describeFor } from "./subject.ts";

/** Something that is sent to see what is said of it. */
export interface Sample {
  readonly size: number;
  readonly type: Description;
  open(): AsyncIterable<Uint8Array>;
}

export type SampleAnswer = { readonly milliseconds: number } & (
  | { readonly outcome: CanaryOutcome; readonly detail: string; readonly tag: string | undefined }
  /** It answered that it could not, or broke off or talked nonsense at this very file. `acquits`: by an answer that would have been clean. */
  | { readonly outcome: "failed"; readonly code: string; readonly detail: string; readonly acquits: boolean }
  /** It was not there, or not in time. */
  | { readonly outcome: "unanswered"; readonly code: string; readonly detail: string }
);

export interface Asked {
  readonly service: IcapService;
  /** Whether the configuration has it told the type. */
  readonly describeType: boolean | undefined;
  /** Milliseconds. */
  readonly timeout: number;
  readonly signal: AbortSignal;
}

/** @throws the signal's reason */
export async function askAbout(sample: Sample, { service, describeType, timeout, signal }: Asked): Promise<SampleAnswer> {
  const begun = performance.now();
  const limited = AbortSignal.any([signal, AbortSignal.timeout(timeout)]);
  try {
    const described = describeFor(service, describeType, sample.type);
    const request = { ...described, body: () => sample.open(), size: sample.size, signal: limited };
    const { verdict, icapStatus, isTag: tag } = await service.scan(request);
    const milliseconds = performance.now() - begun;
    switch (verdict.outcome) {
      case "clean":
        return { outcome: "clean", detail: "", tag, milliseconds };
      case "infected":
        return { outcome: "infected", detail: verdict.threat, tag, milliseconds };
      case "modified":
      case "unscannable":
        return { outcome: verdict.outcome, detail: verdict.why, tag, milliseconds };
      case "error":
        return { outcome: "failed", code: "error", detail: verdict.why, acquits: icapStatus === 200 || icapStatus === 204, milliseconds };
    }
  } catch (error) {
    signal.throwIfAborted();
    const { code, why: detail } = failureOf(error, timeout);
    const milliseconds = performance.now() - begun;
    return error instanceof IcapError && ANSWERED_BADLY.has(error.code)
      ? { outcome: "failed", code, detail, acquits: false, milliseconds }
      : { outcome: "unanswered", code, detail, milliseconds };
  }
}

export function sampleOf({ bytes, type }: Canary): Sample {
  return { size: bytes.length, type, open: () => once(bytes) };
}
