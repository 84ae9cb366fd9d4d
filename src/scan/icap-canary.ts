/** What an ICAP service says of a canary, asked as it is asked about media. */
import { IcapError, type IcapErrorCode, type IcapScanRequest, type IcapService } from "../../icap/index.ts";
import type { CanaryAnswer } from "./canary-run.ts";
import { type Description, describe } from "./description.ts";

/** It was there, and broke off or talked nonsense at this very file. */
export const ANSWERED_BADLY: ReadonlySet<IcapErrorCode> = new Set(["closed_early", "protocol", "limit"]);

export interface CanaryQuestion extends Pick<IcapScanRequest, "body" | "size" | "priority" | "signal"> {
  /** Undefined where it is not to be told. */
  readonly type: Description | undefined;
}

/** @throws IcapError when there was no answer; the signal's reason. */
export async function askAboutCanary(service: IcapService, { type, ...canary }: CanaryQuestion): Promise<CanaryAnswer> {
  try {
    const { verdict, isTag } = await service.scan({ ...describe(type), ...canary });
    return verdict.outcome === "error" ? { outcome: "failed", why: verdict.why } : { outcome: verdict.outcome, tag: isTag ?? "" };
  } catch (error) {
    if (error instanceof IcapError && ANSWERED_BADLY.has(error.code)) return { outcome: "failed", why: error.message };
    throw error;
  }
}

/** The bytes as a body. */
export async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}
