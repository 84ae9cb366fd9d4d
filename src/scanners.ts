/** From a configuration to what scans, and to what their verdicts come to. */
import { icapOptions } from "./config/icap-options.ts";
import type { Config } from "./config/load.ts";
import type { Direction } from "./config/schema.ts";
import type { Logger } from "./observability/log.ts";
import type { GatewayReports } from "./observability/reports.ts";
import type { LiveScans } from "./scan/content-scans.ts";
import { IcapScanner } from "./scan/icap-scanner.ts";
import { Policy } from "./scan/policy.ts";
import type { Scanner } from "./scan/scanner.ts";
import { ScriptScanner } from "./scan/script-scanner.ts";
import type { Stores } from "./stores.ts";

/** Milliseconds that all canaries of one service may take together. */
const CANARY_TIMEOUT = 30_000;

export interface Scanners {
  readonly icap: readonly IcapScanner[];
  readonly scripts: readonly ScriptScanner[];
  readonly all: readonly Scanner[];
  /** Those that are asked about downloads, and about uploads. */
  readonly for: Readonly<Record<Direction, readonly Scanner[]>>;
}

/** Not started yet: nothing is asked of anybody. */
export function openScanners(config: Config, shared: Stores["shared"], reports: GatewayReports, log: Logger): Scanners {
  const icap = openIcapScanners(config, shared, reports);
  const scripts = openScriptScanner(config, log);
  const of = (direction: Direction): readonly Scanner[] => [
    ...icap.filter((_scanner, index) => [direction, "both"].includes(config.icap[index]?.direction ?? "")),
    ...scripts,
  ];
  return { icap, scripts, all: [...icap, ...scripts], for: { download: of("download"), upload: of("upload") } };
}

/**
 * Half of the narrowest scanner that decides: media that arrive slowly leave the other half to those that are there. Where none decides on uploads, the files
 * that clients have checked go by those that decide on downloads.
 */
export function liveScansOf({ for: { download, upload } }: Pick<Scanners, "for">): LiveScans {
  const uploads = upload.some(({ required }) => required) ? upload : download;
  return { download: halfOfNarrowest(download), upload: halfOfNarrowest(uploads) };
}

function halfOfNarrowest(scanners: readonly Scanner[]): number {
  return Math.floor(Math.min(...scanners.filter(({ required }) => required).map(({ capacity }) => capacity)) / 2);
}

export function policyFor({ scan }: Pick<Config, "scan">, scanners: readonly Scanner[], reports: GatewayReports): Policy {
  return new Policy(
    scanners,
    {
      onUnavailable: scan.on_unavailable,
      onUnscannable: scan.on_unscannable,
      onModified: scan.on_modified,
      allowedTypes: scan.allowed_mimetypes,
      blockedTypes: scan.blocked_mimetypes ?? [],
    },
    reports,
  );
}

function openIcapScanners({ icap, scan }: Config, shared: Stores["shared"], reports: GatewayReports): IcapScanner[] {
  return icap.map((service) => {
    const { context, suspend, describe_type: describeType } = service;
    return new IcapScanner({
      name: service.name,
      services: icapOptions(service),
      required: service.required,
      canaries: service.canary,
      canaryInterval: scan.canary_interval,
      canaryTimeout: CANARY_TIMEOUT,
      context: {
        clientIp: context.client_ip,
        serverIp: context.server_ip,
        user: context.user,
        userHeader: context.user_header,
        userFormat: context.user_format,
        userEncoding: context.user_encoding,
      },
      ...(describeType === undefined ? {} : { describeType }),
      maxFileSize: scan.max_file_size,
      proveSize: service.prove_size,
      ...(shared === undefined ? {} : { sharedProofs: shared.proofs, sharedDoubts: shared.doubts }),
      ...(shared?.machine === undefined ? {} : { machine: shared.machine }),
      suspend: { failures: suspend.failures, within: suspend.within, pause: suspend.pause, maxPause: suspend.max_pause },
      log: reports,
    });
  });
}

function openScriptScanner({ scan, result_cache }: Config, log: Logger): ScriptScanner[] {
  if (scan.script === undefined) return [];
  const scanner = new ScriptScanner({
    script: scan.script,
    directory: scan.temp_directory,
    timeout: scan.script_timeout,
    exitCodesToIgnore: result_cache.exit_codes_to_ignore,
    ...(scan.removal_command === undefined ? {} : { removalCommand: scan.removal_command }),
    maxConcurrent: scan.max_concurrent,
    log,
  });
  return [scanner];
}
