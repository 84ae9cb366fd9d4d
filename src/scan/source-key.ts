import type { VerdictKeys } from "../verdicts/keys.ts";
import type { Policy } from "./policy.ts";
import type { MediaRequest } from "./request.ts";

/** The name under which it is remembered what this source holds. The record carries its verdict, so it is another one under another policy. */
export function sourceKey(
  { mxc, variant, attachment, context }: Pick<MediaRequest, "mxc" | "variant" | "attachment" | "context">,
  { keys, policy }: { readonly keys: VerdictKeys; readonly policy: Policy },
): string {
  const audience = JSON.stringify([policy.fingerprint, policy.audience(context)]);
  if (attachment !== undefined) return keys.encryptedSource(attachment, audience);
  const parameters = variant.kind === "download" ? [] : [variant.width, variant.height, variant.method, variant.animated ?? ""];
  return keys.plainSource(mxc, [variant.kind, ...parameters.map(String)], audience);
}
