/** `mxc://` URIs: https://spec.matrix.org/v1.19/client-server-api/#matrix-content-mxc-uris */
import { isIPv4, isIPv6 } from "node:net";
import { GatewayError } from "../errors.ts";
import type { Mxc } from "./source.ts";

const MAX_SERVER_NAME = 230;
const MAX_MEDIA_ID = 255;

const MEDIA_ID = /^[A-Za-z0-9_-]+$/;
/** Labels are not empty: the specification's `dns-char` alone would let `..` through, which URL parsers take as a step up. */
const DNS_NAME = /^[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.?$/;
const SERVER_NAME = /^(?<host>\[(?<ipv6>[0-9A-Fa-f:.]{2,45})\]|[A-Za-z0-9.-]+)(?::(?<port>[0-9]{1,5}))?$/;
const MXC_URL = /^mxc:\/\/(?<serverName>[^/]+)\/(?<mediaId>[^/]+)$/;

/**
 * Checks a server name and a media ID against the specification's grammar; both were percent-decoded once, no more, by the caller.
 * What passes is safe as a path segment (the server name percent-encoded) and as the authority of a URL.
 * @throws GatewayError `bad_media_id`
 */
export function parseMxc(serverName: string, mediaId: string): Mxc {
  if (!isServerName(serverName) || !isMediaId(mediaId)) throw new GatewayError("bad_media_id");
  return { serverName, mediaId };
}

/** The parts of an `mxc://server/mediaId` URI, as it stands in an event; undefined for anything else. */
export function parseMxcUrl(url: string): Mxc | undefined {
  const { serverName = "", mediaId = "" } = MXC_URL.exec(url)?.groups ?? {};
  return isServerName(serverName) && isMediaId(mediaId) ? { serverName, mediaId } : undefined;
}

function isMediaId(text: string): boolean {
  return text.length <= MAX_MEDIA_ID && MEDIA_ID.test(text);
}

/** https://spec.matrix.org/v1.19/appendices/#server-name */
function isServerName(text: string): boolean {
  if (text.length > MAX_SERVER_NAME) return false;
  const { host, ipv6, port } = SERVER_NAME.exec(text)?.groups ?? {};
  if (host === undefined) return false;
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65535)) return false;
  return ipv6 === undefined ? isIPv4(host) || DNS_NAME.test(host) : isIPv6(ipv6);
}
