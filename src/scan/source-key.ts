import type { MediaVariant } from "../media/source.ts";
import type { VerdictKeys } from "../verdicts/keys.ts";
import type { Policy } from "./policy.ts";
import type { MediaRequest } from "./request.ts";

/** The name under which it is remembered what this source holds. The record carries its verdict, so it is another one under another policy. */
export function sourceKey(
  { mxc, variant, attachment, context }: Pick<MediaRequest, "mxc" | "variant" | "attachment" | "context">,
  { keys, policy }: { readonly keys: VerdictKeys; readonly policy: Policy },
): string {
  const scope = policy.scope(context);
  if (attachment !== undefined) return keys.encryptedSource(attachment, scope);
  return keys.plainSource(mxc, partsOf(variant), scope);
}

const DOWNLOAD = ["download"] as const;

function partsOf(variant: MediaVariant): readonly string[] {
  if (variant.kind === "download") return DOWNLOAD;
  return [variant.kind, ...[variant.width, variant.height, variant.method, variant.animated ?? ""].map(String)];
}
