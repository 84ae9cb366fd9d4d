/** The sections of the configuration file: keys, defaults and what must hold within a section. `config.example.yaml` explains each key. */
import * as z from "zod";
import { homeserverUrlProblem, networkProblem, proxyUrlProblem } from "./addresses.ts";
import { ALWAYS, LONGEST_TIMER, checked, count, duration, durationOrNone, host, path, port, section, size } from "./fields.ts";
import { LEAST_SPOOL_MEMORY, MOST_WORKERS } from "./worker-shares.ts";

const MEDIA_TYPE = /^[a-z0-9][\w!#$&^.+-]*\/[a-z0-9][\w!#$&^.+-]*$/;
const mediaType = checked((text) => {
  if (text.includes("*")) return "must name one type: there are no wildcards";
  return MEDIA_TYPE.test(text.toLowerCase()) ? undefined : "must be a media type such as image/jpeg";
}).transform((text) => text.toLowerCase());

/**
 * What the gateway must say itself, or what would get a client something other than the whole media as it is. The media room has the last
 * word: it sends none of these, whatever gets past here. Authorization, which it counts among them, has messages of its own below.
 */
const RESERVED_HEADER =
  /^(accept-encoding|connection|content-.*|expect|http2-settings|if-.*|keep-alive|proxy-.*|range|te|trailer|transfer-encoding|upgrade)$/i;

const headerName = checked((name) => {
  if (!/^[\w!#$%&'*+.^`|~-]{1,100}$/.test(name)) return "must be the name of an HTTP header";
  return RESERVED_HEADER.test(name) ? "is a header that the gateway needs for itself" : undefined;
});

const additionalHeaders = z.record(
  headerName.refine((name) => name.toLowerCase() !== "authorization", "would let everybody read what this token may read"),
  z.string().regex(/^[\t\x20-\x7e\x80-\xff]*$/, "must be printable characters in one line"),
);

export const web = section({
  host: host.default("127.0.0.1"),
  port: port.default(8080),
  workers: z.int().min(1).max(MOST_WORKERS).default(1),
  trusted_proxies: z.array(checked(networkProblem)).default([]),
});

export const admin = section({
  host: host.default("127.0.0.1"),
  port: port.default(9090),
});

const spool = section({
  memory: size(LEAST_SPOOL_MEMORY).prefault("64MiB"),
  disk: size(1).prefault("10GiB"),
});

export const scan = section({
  max_file_size: size(1).prefault("200MiB"),
  wait: duration(LONGEST_TIMER).prefault("25s"),
  timeout: duration(LONGEST_TIMER).prefault("5m"),
  max_concurrent: count(1).default(64),
  max_queued: count(0).default(512),
  max_per_client: count(1).default(16),
  on_unavailable: z.enum(["block", "allow"]).default("block"),
  on_unscannable: z.enum(["block", "allow"]).default("block"),
  on_modified: z.enum(["block", "deliver"]).default("block"),
  canary_interval: duration(LONGEST_TIMER).prefault("60s"),
  temp_directory: path.default("/tmp"),
  spool,
  script: path.exactOptional(),
  script_timeout: duration(LONGEST_TIMER).prefault("1m"),
  removal_command: path.exactOptional(),
  allowed_mimetypes: z.array(mediaType).exactOptional(),
  blocked_mimetypes: z.array(mediaType).exactOptional(),
}).superRefine((value, context) => {
  const issue = (key: string, message: string) => context.addIssue({ code: "custom", path: [key], message });
  if (isAbove(value?.wait, value?.timeout)) issue("wait", "must not be longer than scan.timeout");
  if (isAbove(value?.max_file_size, value?.spool?.disk)) {
    issue("max_file_size", "must not be larger than scan.spool.disk: such a file could never be held while it is scanned");
  }
  if (value?.allowed_mimetypes !== undefined && value.blocked_mimetypes !== undefined) {
    issue("blocked_mimetypes", "must not stand beside scan.allowed_mimetypes: what is not allowed is blocked");
  }
}, ALWAYS);

/** Milliseconds: longer, and a user who left a room, or was thrown out, would read on for hours. */
const MAX_AUTHORIZATION_TTL = 3_600_000;

export const download = section({
  base_homeserver_url: checked(homeserverUrlProblem).exactOptional(),
  proxy: checked(proxyUrlProblem).exactOptional(),
  additional_headers: additionalHeaders.default({}),
  // Authorization takes its own way to the homeserver, whether it is listed or not.
  headers_to_forward: z
    .array(headerName)
    .transform((names) => [...new Set(names.map((name) => name.toLowerCase()))].filter((name) => name !== "authorization"))
    .default([]),
  authorization_ttl: durationOrNone(MAX_AUTHORIZATION_TTL).prefault("0s"),
}).superRefine((value, context) => {
  if (typeof value?.authorization_ttl !== "number" || value.authorization_ttl === 0 || value.base_homeserver_url !== undefined) return;
  const message = "needs download.base_homeserver_url: no other server sees a token";
  context.addIssue({ code: "custom", path: ["authorization_ttl"], message });
}, ALWAYS);

export const upload = section({ enabled: z.boolean().default(false) });

/** `enabled` is left open where the file does not say: it then depends on whether tokens can be checked. */
export const scanFile = section({
  enabled: z.boolean().exactOptional(),
  require_token: z.boolean().default(true),
});

export const transparent = section({
  enabled: z.boolean().default(false),
  on_opaque: z.enum(["pass", "block"]).default("pass"),
});

const previousSecrets = { previous_request_secret_paths: z.array(path).default([]) };

export const crypto = section({
  request_secret_path: path.exactOptional(),
  ...previousSecrets,
  pickle_path: path.exactOptional(),
  pickle_key: z.string().min(1, "must not be empty").exactOptional(),
})
  .superRefine((value, context) => {
    const issue = (key: string, message: string) => context.addIssue({ code: "custom", path: [key], message });
    const pickle = value?.pickle_path !== undefined;
    if (pickle && value.pickle_key === undefined) issue("pickle_key", "is needed beside crypto.pickle_path");
    if (!pickle && value?.pickle_key !== undefined) issue("pickle_path", "is needed beside crypto.pickle_key");
    if (pickle && value.request_secret_path !== undefined) issue("pickle_path", "must not stand beside crypto.request_secret_path");
  }, ALWAYS)
  .transform(({ request_secret_path, pickle_path, pickle_key, previous_request_secret_paths }) =>
    pickle_path !== undefined && pickle_key !== undefined
      ? { pickle_path, pickle_key, previous_request_secret_paths }
      : { request_secret_path: request_secret_path ?? "./request_secret", previous_request_secret_paths },
  );

export const log = section({
  level: z.enum(["fatal", "error", "warn", "info", "debug", "trace"]).default("info"),
});

function isAbove(left: unknown, right: unknown): boolean {
  return typeof left === "number" && typeof right === "number" && left > right;
}
