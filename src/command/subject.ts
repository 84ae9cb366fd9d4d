import { extname } from "node:path";
import type { IcapScanRequest, IcapService } from "../../icap/index.ts";

/** What an appliance is told of the bytes. */
type Description = Pick<IcapScanRequest, "fileName" | "contentType">;

/** What the gateway says of media too: nothing that their sender chose. */
const UNNAMED: Description = { fileName: "media", contentType: "application/octet-stream" };

/** As the gateway describes media: not at all, or, to an appliance that decides by it, by the type. */
export function describeFor(service: IcapService, type: { readonly mime: string; readonly extension: string } | undefined): Description {
  if (!service.profile.wantsName || type === undefined) return UNNAMED;
  return { fileName: `media.${type.extension}`, contentType: type.mime };
}

/** Of a file on disk nothing is known but its name. */
export function typeOfPath(path: string): { readonly mime: string; readonly extension: string } {
  const extension = extname(path).slice(1).toLowerCase();
  return { mime: UNNAMED.contentType, extension: /^[a-z0-9]{1,10}$/.test(extension) ? extension : "bin" };
}
