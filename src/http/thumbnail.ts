/** Query parameters of a thumbnail (Matrix Client-Server API, "GET /_matrix/client/v1/media/thumbnail"); clients may leave any of them out. */
import { GatewayError } from "../errors.ts";
import type { MediaVariant } from "../media/source.ts";

/** Synapse asks for both; these are of the sizes that it makes beforehand. */
const DEFAULTS = { width: 320, height: 240, method: "scale" } as const;

/** Pixels; larger than any screen, and short enough to be a number of the homeserver's kind. */
const MAX_SIDE = 16_384;

/** @throws GatewayError `bad_parameter` for a value that no homeserver would understand. */
export function thumbnailVariant(query: Readonly<Record<string, string>>): MediaVariant {
  const animated = flag("animated", query["animated"]);
  return {
    kind: "thumbnail",
    width: side(query["width"], DEFAULTS.width),
    height: side(query["height"], DEFAULTS.height),
    method: method(query["method"]),
    ...(animated === undefined ? {} : { animated }),
  };
}

function side(value: string | undefined, fallback: number): number {
  if (value === undefined) return fallback;
  const pixels = /^\d{1,5}$/u.test(value) ? Number(value) : 0;
  if (pixels < 1 || pixels > MAX_SIDE) throw new GatewayError("bad_parameter", { info: "width and height are numbers of pixels" });
  return pixels;
}

function method(value: string | undefined): "crop" | "scale" {
  if (value === undefined) return DEFAULTS.method;
  if (value !== "crop" && value !== "scale") throw new GatewayError("bad_parameter", { info: "method is crop or scale" });
  return value;
}

/** @throws GatewayError `bad_parameter` */
export function flag(name: string, value: string | undefined): boolean | undefined {
  if (value === undefined) return undefined;
  if (value !== "true" && value !== "false") throw new GatewayError("bad_parameter", { info: `${name} is true or false` });
  return value === "true";
}
