import { extname } from "node:path";
import type { IcapService } from "../../icap/index.ts";
import { type Description, describe } from "../scan/description.ts";

/**
 * As the gateway describes media: not at all, or, to a service that decides by it, by the type. `describeType`: whether the configuration
 * says so; the profile by default.
 */
export function describeFor(service: IcapService, describeType: boolean | undefined, type: Description): ReturnType<typeof describe> {
  return describe((describeType ?? service.profile.wantsName) ? type : undefined);
}

/** Of a file on disk nothing is known but its name. */
export function typeOfPath(path: string): Description {
  const extension = extname(path).slice(1);
  return { mime: "application/octet-stream", extension: /^[a-z0-9]{1,16}$/i.test(extension) ? extension : "bin" };
}
