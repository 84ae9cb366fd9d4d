/** The `icap` section: one entry for each service that scans. `config.example.yaml` explains each key. */
import * as z from "zod";
import { PROFILE_NAMES, isFreeField, profileOf } from "../../icap/index.ts";
import { icapUrlProblem } from "./addresses.ts";
import { ALWAYS, LONGEST_TIMER, checked, count, duration, path, section } from "./fields.ts";

const HEADER_NAME = /^[\w!#$%&'*+.^`|~-]{1,100}$/;
const headerName = z.string().regex(HEADER_NAME, "must be the name of a header");
const printable = z.string().regex(/^[\x20-\x7e]{1,200}$/, "must be 1 to 200 printable ASCII characters");

const ownHeaderName = headerName.refine(isFreeField, "is a header that the gateway needs for itself");

const tls = section({
  ca_path: path.exactOptional(),
  cert_path: path.exactOptional(),
  key_path: path.exactOptional(),
  server_name: z
    .string()
    .regex(/^[\w.:-]{1,253}$/, "must be a host name or an address")
    .exactOptional(),
  min_version: z.enum(["TLSv1.2", "TLSv1.3"]).default("TLSv1.2"),
}).superRefine((value, context) => {
  const issue = (key: string, message: string) => context.addIssue({ code: "custom", path: [key], message });
  if (value?.cert_path !== undefined && value.key_path === undefined) issue("cert_path", "needs key_path beside it");
  if (value?.key_path !== undefined && value.cert_path === undefined) issue("key_path", "needs cert_path beside it");
}, ALWAYS);

const told = z.enum(["never", "asked", "always"]).default("never");

const context = section({
  client_ip: told,
  server_ip: told,
  user: told,
  user_header: ownHeaderName.default("X-Authenticated-User"),
  user_format: printable
    .refine((text) => /\{(?:user|localpart)\}/.test(text), "must hold {user} or {localpart}")
    .refine((text) => !/\{(?!user\}|localpart\}|server\})/.test(text), "may hold {user}, {localpart} and {server} only")
    .default("{user}"),
  user_encoding: z.enum(["base64", "plain"]).default("base64"),
});

const suspend = section({
  failures: count(1).default(5),
  within: duration(LONGEST_TIMER).prefault("30s"),
  pause: duration(LONGEST_TIMER).prefault("5s"),
  max_pause: duration(LONGEST_TIMER).prefault("5m"),
});

/** What a service has to catch unless it is set otherwise. */
const PROVED: readonly ("plain" | "zip" | "pdf")[] = ["plain", "zip", "pdf"];

const service = z
  .strictObject({
    name: z.string().regex(/^[a-z0-9-]{1,64}$/, "must be 1 to 64 of a-z, 0-9 and -"),
    urls: z.array(checked(icapUrlProblem)).min(1),
    profile: z.enum(PROFILE_NAMES).default("auto"),
    method: z.enum(["RESPMOD", "REQMOD"]).exactOptional(),
    direction: z.enum(["download", "upload", "both"]).default("both"),
    required: z.boolean().default(true),
    canary: z.array(z.enum(["plain", "zip", "pdf", "png", "trailing", "expand", "encrypted"])).exactOptional(),
    prove_size: z.boolean().default(true),
    blocked_headers: z.array(headerName).default([]),
    describe_type: z.boolean().exactOptional(),
    preview: z.enum(["never", "required", "trusted"]).exactOptional(),
    transfer_lists: z.enum(["ignored", "trusted"]).default("ignored"),
    headers: z.record(ownHeaderName, printable).default({}),
    context,
    max_connections: z.int().min(1).max(10_000).default(16),
    max_waiting: count(0).default(256),
    connect_timeout: duration(LONGEST_TIMER).prefault("5s"),
    write_timeout: duration(LONGEST_TIMER).prefault("30s"),
    answer_timeout: duration(LONGEST_TIMER).prefault("2m"),
    idle_timeout: duration(LONGEST_TIMER).prefault("5s"),
    total_timeout: duration(LONGEST_TIMER).prefault("5m"),
    suspend,
    tls: tls.exactOptional(),
    username: printable.refine((name) => !name.includes(":"), "must not hold a colon").exactOptional(),
    password_path: path.exactOptional(),
  })
  .superRefine((value, context) => {
    // What is no section at all has been told of already.
    if (typeof value !== "object" || value === null) return;
    const issue = (key: string, message: string) => context.addIssue({ code: "custom", path: [key], message });
    const urls: readonly unknown[] = Array.isArray(value.urls) ? value.urls : [];
    for (const [at, url] of urls.entries()) {
      if (urls.indexOf(url) < at) context.addIssue({ code: "custom", path: ["urls", at], message: "stands here already" });
    }
    if (value.username !== undefined && value.password_path === undefined) issue("username", "needs password_path beside it");
    if (value.password_path !== undefined && value.username === undefined) issue("password_path", "needs username beside it");
    const secure = Array.isArray(value.urls) && value.urls.some((url: unknown) => typeof url === "string" && /^icaps:/i.test(url));
    if (value.profile === "fortisandbox" && value.preview !== undefined && value.preview !== "never") {
      issue("preview", "must be never: FortiSandbox passes whatever is previewed");
    }
    if (value.tls !== undefined && !secure) issue("tls", "is for icaps:// alone, and there is none among the urls");
  }, ALWAYS)
  // A DLP knows no viruses, and would be taken for a broken antivirus.
  .transform(({ canary, ...value }) => ({ ...value, canary: canary ?? (profileOf(value.profile).findsViruses ? PROVED : []) }));

export const icap = z.preprocess(
  (value) => value ?? [],
  z.array(service).superRefine((services, context) => {
    const all: readonly { name?: unknown; required?: unknown }[] = Array.isArray(services) ? services : [];
    const names = all.map((one) => one?.name);
    for (const [index, name] of names.entries()) {
      if (typeof name === "string" && names.indexOf(name) < index) {
        context.addIssue({ code: "custom", path: [index, "name"], message: "is the name of another service already" });
      }
    }
  }, ALWAYS),
);
