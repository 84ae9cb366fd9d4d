/** The configuration as a whole: its type, what must hold across sections, and what an operator should know about it. */
import * as z from "zod";
import { isLoopback } from "./addresses.ts";
import { resultCache } from "./cache-section.ts";
import { ALWAYS } from "./fields.ts";
import { icap } from "./icap-section.ts";
import { admin, crypto, download, log, scan, scanFile, transparent, upload, web } from "./sections.ts";
import { shareIssues } from "./worker-shares.ts";

export const schema = z
  .strictObject({ web, admin, icap, scan, upload, scan_file: scanFile, result_cache: resultCache, download, transparent, crypto, log })
  .superRefine((value, context) => {
    if (Array.isArray(value.icap) && value.icap.length === 0 && value.scan?.script === undefined) {
      context.addIssue({
        code: "custom",
        path: ["icap"],
        message:
          "there is nothing to scan with: name an ICAP service (icap: [{ name: antivirus, urls: [icap://127.0.0.1:1344/virus_scan] }]) or a scan.script",
      });
    }
    if (Array.isArray(value.icap) && value.icap.length > 0 && value.scan?.script === undefined) {
      const unguarded = DIRECTIONS.filter((direction) => !value.icap.some((service) => decidesOn(service, direction)));
      const [first = "download"] = unguarded;
      const message =
        unguarded.length === DIRECTIONS.length
          ? "none of the services is required, so nothing would ever be blocked"
          : `no service that is required has the direction ${first} or both, so no ${first} would ever be blocked`;
      if (unguarded.length > 0 && (first === "download" || isOn(value.upload?.enabled))) {
        context.addIssue({ code: "custom", path: ["icap"], message });
      }
    }
    if (value.download?.base_homeserver_url === undefined) {
      const needed = "needs download.base_homeserver_url";
      if (isOn(value.upload?.enabled)) {
        context.addIssue({ code: "custom", path: ["upload", "enabled"], message: `${needed}: that is where uploads go` });
      }
      if (isOn(value.scan_file?.enabled) && isOn(value.scan_file?.require_token)) {
        const message = `${needed}, which tells whether a token is known; or scan_file.require_token: false`;
        context.addIssue({ code: "custom", path: ["scan_file", "enabled"], message });
      }
    }
    const largest: unknown = value.scan?.max_file_size;
    if (typeof largest === "number" && largest > LARGEST_PROOF && Array.isArray(value.icap) && value.icap.some(provesSize)) {
      const message = "must be less than 4GiB, or no service could prove that it scans files of that size (icap[].prove_size)";
      context.addIssue({ code: "custom", path: ["scan", "max_file_size"], message });
    }
    const transparent: unknown = value.transparent?.enabled;
    if (transparent === true && value.download?.base_homeserver_url === undefined) {
      const message = "needs download.base_homeserver_url: it stands in for that homeserver";
      context.addIssue({ code: "custom", path: ["transparent", "enabled"], message });
    }
    const port: unknown = value.web?.port;
    if (typeof port === "number" && port !== 0 && port === value.admin?.port && value.web.host === value.admin.host) {
      context.addIssue({ code: "custom", path: ["admin", "port"], message: "must not be the port of the web section too" });
    }
    for (const issue of shareIssues(value ?? {})) context.addIssue({ code: "custom", ...issue });
  }, ALWAYS);

/** What the file says, with defaults filled in. */
export type Settings = DeepReadonly<z.output<typeof schema>>;

type DeepReadonly<T> = T extends object ? { readonly [Key in keyof T]: DeepReadonly<T[Key]> } : T;

/** Of a zip without its extensions for larger ones. */
const LARGEST_PROOF = 2 ** 32 - 1;

function provesSize(service: { readonly prove_size?: unknown; readonly canary?: unknown } | null): boolean {
  return service?.prove_size === true && Array.isArray(service.canary) && service.canary.length > 0;
}

const DIRECTIONS = ["download", "upload"] as const;
export type Direction = (typeof DIRECTIONS)[number];

/** Of what is no service at all, it is told elsewhere. */
function decidesOn(service: { readonly required?: unknown; readonly direction?: unknown } | null, direction: Direction): boolean {
  return service?.required !== false && service?.direction !== (direction === "download" ? "upload" : "download");
}

/** A key that failed its own check may hold anything. */
function isOn(value: unknown): boolean {
  return value === true;
}

/** Whether files may be checked before they are uploaded. */
export function checksFiles({ scan_file: { enabled, require_token: requiresToken }, download }: Settings): boolean {
  return enabled ?? (!requiresToken || download.base_homeserver_url !== undefined);
}

/**
 * Keys as the file has them, so that a message can name them; sizes in bytes, durations in milliseconds, defaults filled in, media types and
 * `headers_to_forward` in lower case; secrets and certificates are read from their files, and stand beside the keys that name those. `crypto` holds either `request_secret_path` or `pickle_path` and `pickle_key`. Paths are as written: relative to the
 * working directory.
 */
export type Config = Settings & {
  readonly icap: readonly (Settings["icap"][number] & { readonly password?: string; readonly tls?: TlsTexts })[];
  readonly result_cache: { readonly digest_secret?: string; readonly redis?: RedisConfig };
};

export type RedisSettings = NonNullable<Settings["result_cache"]["redis"]>;
export type RedisConfig = RedisSettings & { readonly password?: string; readonly sentinel_password?: string; readonly tls?: TlsTexts };

/** In PEM form. */
export interface TlsTexts {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
}

export interface Remark {
  readonly path: readonly (string | number)[];
  readonly message: string;
}

/**
 * What works, but may surprise.
 * @param machine bytes that may be used, and processors
 */
export function remarks(config: Config, { memory, processors }: { readonly memory: number; readonly processors: number }): Remark[] {
  const found: Remark[] = [];
  const { workers } = config.web;
  const remark = (path: Remark["path"], message: string) => found.push({ path, message });
  for (const [index, service] of config.icap.entries()) {
    const { pause, max_pause: maxPause } = service.suspend;
    if (pause > maxPause) remark(["icap", index, "suspend", "pause"], "is longer than max_pause, which is what counts");
    if (service.connect_timeout > service.total_timeout) {
      remark(["icap", index, "connect_timeout"], "is longer than total_timeout, which is what counts");
    }
    if (service.prove_size && service.canary.length > 0 && service.max_connections < 3 * workers) {
      const divided = workers === 1 ? "" : `divided by ${workers} workers `;
      remark(
        ["icap", index, "max_connections"],
        `${divided}is so small that files wait while the service proves up to which size it scans`,
      );
    }
    for (const [at, url] of service.urls.entries()) {
      if (!isLoopback(url) && /^icap:/i.test(url)) {
        const what = service.username === undefined ? "decrypted ones too" : "decrypted ones too, and the password with them";
        remark(["icap", index, "urls", at], `files travel to this service in the clear, ${what}: icaps:// encrypts them`);
      }
    }
    if (service.preview === "trusted") {
      remark(["icap", index, "preview"], "this service may pass a file of which it has seen no more than the beginning");
    }
    if (service.transfer_lists === "trusted") {
      remark(["icap", index, "transfer_lists"], "files whose detected type this service does not want are passed without it");
    }
    if (service.required && !service.canary.includes("plain")) {
      remark(["icap", index, "canary"], "nobody checks that this service catches a virus: fit for DLP, not for an antivirus");
    }
  }
  for (const [index, { direction }] of config.icap.entries()) {
    if (direction === "upload" && !config.upload.enabled && !checksFiles(config)) {
      remark(["icap", index, "direction"], "is upload, but no uploads come this way (upload.enabled): this service is never asked");
    }
  }
  if (checksFiles(config) && !config.scan_file.require_token) {
    remark(["scan_file", "require_token"], "lets everybody use the scanners who can reach this gateway");
  }
  if (config.scan.on_modified === "deliver" && config.icap.filter((service) => decidesOn(service, "download")).length < 2) {
    remark(["scan", "on_modified"], "hands on what the only scanner sent back, on that scanner's word alone");
  }
  const { spool, max_file_size: largestFile } = config.scan;
  if ((config.upload.enabled || checksFiles(config)) && spool.disk < 2 * workers * largestFile) {
    const each = workers === 1 ? "" : ` for each of ${workers} workers`;
    remark(["scan", "spool", "disk"], `is less than twice scan.max_file_size${each}: one upload may take most of it, and downloads wait`);
  }
  if (config.scan.spool.memory > memory / 2) remark(["scan", "spool", "memory"], "is more than half of the memory that there is");
  const { media_memory: media, max_file_size: largest } = config.result_cache;
  if (config.download.authorization_ttl > 0 && media > 0 && media < workers * largest) {
    const divided = workers === 1 ? "" : `divided by ${workers} workers `;
    remark(["result_cache", "media_memory"], `${divided}is less than result_cache.max_file_size: nothing that is larger is held`);
  }
  if (workers > 1 && workers > processors) remark(["web", "workers"], `are more than the ${processors} processors that there are`);
  if (config.scan.on_unavailable === "allow") remark(["scan", "on_unavailable"], "files pass unscanned while a scanner does not answer");
  if (config.scan.on_unscannable === "allow") remark(["scan", "on_unscannable"], "files pass that no scanner could look into");
  if (config.scan.allowed_mimetypes?.length === 0) remark(["scan", "allowed_mimetypes"], "is empty: every file is blocked");
  if (config.web.trusted_proxies.some((network) => network.endsWith("/0"))) {
    remark(["web", "trusted_proxies"], "trusts everybody: clients can pretend to any address");
  }
  return found;
}
