/** The `result_cache` section: what is remembered, where, and what operators decide by hand. `config.example.yaml` explains each key. */
import { isIP } from "node:net";
import * as z from "zod";
import { redisUrlProblem } from "./addresses.ts";
import { ALWAYS, checked, duration, path, section, size } from "./fields.ts";

/** `host:port`, an IPv6 address in brackets. */
const server = z
  .string()
  .transform((text, context) => {
    const [, host = "", port = ""] = /^(\[[^\]]+\]|[^\s:/@]+):(\d{1,5})$/.exec(text) ?? [];
    const bare = host.replace(/^\[|\]$/g, "");
    const fits = bare !== "" && (!host.startsWith("[") || isIP(bare) === 6) && Number(port) >= 1 && Number(port) <= 65_535;
    if (fits) return { host: bare, port: Number(port) };
    context.addIssue("must be a host and a port, such as redis-1.example.com:6379");
    return z.NEVER;
  })
  .meta({ type: "string" });

const tls = section({
  ca_path: path.exactOptional(),
  cert_path: path.exactOptional(),
  key_path: path.exactOptional(),
  server_name: z
    .string()
    .regex(/^[\w.:-]{1,253}$/, "must be a host name or an address")
    .exactOptional(),
}).superRefine((value, context) => {
  const issue = (key: string, message: string) => context.addIssue({ code: "custom", path: [key], message });
  if (value?.cert_path !== undefined && value.key_path === undefined) issue("cert_path", "needs key_path beside it");
  if (value?.key_path !== undefined && value.cert_path === undefined) issue("key_path", "needs cert_path beside it");
}, ALWAYS);

const redis = section({
  url: checked(redisUrlProblem).exactOptional(),
  sentinels: z.array(server).min(1).exactOptional(),
  master: z.string().min(1).max(100).exactOptional(),
  sentinel_password_path: path.exactOptional(),
  cluster: z.array(server).min(1).exactOptional(),
  username: z.string().min(1).max(200).exactOptional(),
  password_path: path.exactOptional(),
  tls: tls.exactOptional(),
  key_prefix: z.string().max(100).default("mig:"),
}).superRefine((value, context) => {
  const issue = (key: string, message: string) => context.addIssue({ code: "custom", path: [key], message });
  const ways = [value?.url, value?.sentinels, value?.cluster].filter((way) => way !== undefined);
  if (ways.length !== 1) issue("url", "is needed, or sentinels, or cluster: one of the three");
  if ((value?.sentinels === undefined) !== (value?.master === undefined)) issue("master", "and sentinels belong together");
  if (value?.sentinel_password_path !== undefined && value.sentinels === undefined)
    issue("sentinel_password_path", "is for sentinels alone");
  if (value?.tls !== undefined && typeof value.url === "string" && !/^rediss:/i.test(value.url)) issue("tls", "is for rediss:// alone");
  if (value?.username !== undefined && value.password_path === undefined) issue("username", "needs password_path beside it");
}, ALWAYS);

export const resultCache = section({
  ttl: duration(Number.MAX_SAFE_INTEGER).prefault("1d"),
  clean_ttl: duration(Number.MAX_SAFE_INTEGER).exactOptional(),
  infected_ttl: duration(Number.MAX_SAFE_INTEGER).exactOptional(),
  max_size: z.int().min(1).max(100_000_000).default(100_000),
  // 0 is clean: there is nothing to ignore about it.
  exit_codes_to_ignore: z.array(z.int().min(1).max(255)).default([]),
  media_memory: size(0).prefault("64MiB"),
  max_file_size: size(0).prefault("16MiB"),
  digest_secret_path: path.exactOptional(),
  overrides_path: path.default("./overrides"),
  blocked_hashes_path: path.exactOptional(),
  redis: redis.exactOptional(),
});
