import { randomUUID } from "node:crypto";
import { IcapError, type IcapErrorCode, type IcapService } from "../../icap/index.ts";
import type { CanaryOutcome } from "../scan/canary-advice.ts";
import { type CanaryKind, buildCanary } from "../scan/canary-samples.ts";
import { failureOf } from "./failure.ts";
import { describeFor } from "./subject.ts";

/** Something that is sent to see what is said of it. */
export interface Sample {
  readonly size: number;
  readonly type: { readonly mime: string; readonly extension: string };
  open(): AsyncIterable<Uint8Array>;
}

export type SampleAnswer = { readonly milliseconds: number } & (
  | { readonly outcome: CanaryOutcome; readonly detail: string; readonly tag: string | undefined }
  /** It answered that it could not, or broke off or talked nonsense at this very file. */
  | { readonly outcome: "failed"; readonly code: string; readonly detail: string }
  /** It was not there, or not in time. */
  | { readonly outcome: "unanswered"; readonly code: string; readonly detail: string }
);

const ANSWERED_BADLY: readonly IcapErrorCode[] = ["closed_early", "protocol", "limit"];

/** @param timeout milliseconds @throws the signal's reason */
export async function askAbout(sample: Sample, service: IcapService, timeout: number, signal: AbortSignal): Promise<SampleAnswer> {
  const begun = performance.now();
  const limited = AbortSignal.any([signal, AbortSignal.timeout(timeout)]);
  try {
    const request = { ...describeFor(service, sample.type), body: () => sample.open(), size: sample.size, signal: limited };
    const { verdict, isTag: tag } = await service.scan(request);
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
        return { outcome: "failed", code: "error", detail: verdict.why, milliseconds };
    }
  } catch (error) {
    signal.throwIfAborted();
    const { code, why } = failureOf(error, timeout);
    const outcome = error instanceof IcapError && ANSWERED_BADLY.includes(error.code) ? "failed" : "unanswered";
    return { outcome, code, detail: why, milliseconds: performance.now() - begun };
  }
}

export function canarySample(kind: CanaryKind): Sample {
  const { bytes, type } = buildCanary(kind);
  return { size: bytes.length, type, open: () => once(bytes) };
}

/** Another one each time, so that no answer comes from a cache of hashes. */
export function harmlessSample(): Sample {
  const bytes = Buffer.from(`A harmless text file: ${randomUUID()}\n`);
  return { size: bytes.length, type: { mime: "text/plain", extension: "txt" }, open: () => once(bytes) };
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}
