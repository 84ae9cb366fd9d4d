/** From a configuration to what clients may bring: uploads, and files that are only checked. */
import type { Config } from "./config/load.ts";
import { homeserverConnections } from "./config/worker-shares.ts";
import { checksFiles } from "./config/schema.ts";
import type { AppOptions } from "./http/app.ts";
import { HomeserverStore } from "./media/media-store.ts";
import type { Credentials, Identifier } from "./media/source.ts";
import { SpoolBudget } from "./media/spool-budget.ts";
import { UploadLimits } from "./media/upload-limits.ts";
import type { GatewayReports } from "./observability/reports.ts";
import type { Admission } from "./scan/admission.ts";
import { FileChecks } from "./scan/file-check.ts";
import { Foresight } from "./scan/foresight.ts";
import type { Pipeline } from "./scan/pipeline.ts";
import type { Policy } from "./scan/policy.ts";
import { type Panel, panelOf } from "./scan/recall.ts";
import { Reception } from "./scan/reception.ts";
import type { Scanner } from "./scan/scanner.ts";
import { Uploads } from "./scan/uploads.ts";
import { type Scanners, policyFor } from "./scanners.ts";
import type { Stores } from "./stores.ts";
import { PIECE_SIZE } from "./verdicts/store.ts";

export interface UploadDoors extends AsyncDisposable {
  readonly doors: Pick<AppOptions, "uploads" | "fileChecks">;
  shutdown(signal: AbortSignal): Promise<void>;
}

export interface UploadParts {
  /** Of downloads, whose means it shares. */
  readonly pipeline: Pipeline;
  /** Tells whose token it is. */
  readonly source: Identifier;
  /** Told of the credentials that the homeserver refuses. */
  readonly refused: (credentials: Credentials) => void;
  readonly scanners: Scanners;
  readonly stores: Stores;
  readonly admission: Admission;
  readonly reports: GatewayReports;
  /** What this gateway calls itself to the homeserver. */
  readonly pseudonym: string;
}

export function openUploads(config: Config, parts: UploadParts): UploadDoors {
  const { pipeline, source, stores, admission, reports } = parts;
  const { scan, download } = config;
  const reception = new Reception({
    identifier: source,
    admission,
    share: shareOf(config),
    maxFileSize: scan.max_file_size,
    wait: scan.wait,
  });
  const { examination } = pipeline;
  const common = { reception, examination, timeout: scan.timeout, events: reports };
  const panel = (scanners: readonly Scanner[]): Panel => panelOf({ ...stores, policy: policyOf(config, scanners, reports) });

  const baseUrl = config.upload.enabled ? download.base_homeserver_url : undefined;
  const store =
    baseUrl === undefined
      ? undefined
      : new HomeserverStore({
          baseUrl,
          pseudonym: parts.pseudonym,
          ...(download.proxy === undefined ? {} : { proxy: download.proxy }),
          additionalHeaders: download.additional_headers,
          refused: parts.refused,
          maxConnections: homeserverConnections(config.web),
        });
  const foresight = new Foresight({ verdicts: stores.verdicts, keys: stores.keys, downloads: pipeline.panel });
  const forUploads = parts.scanners.for.upload;
  const uploads =
    store &&
    new Uploads({
      ...common,
      admission,
      panel: panel(forUploads),
      scanners: forUploads,
      store,
      limits: new UploadLimits(store),
      foresight,
    });
  const { all } = parts.scanners;
  const fileChecks = checksFiles(config)
    ? new FileChecks({
        ...common,
        panel: panel(all),
        scanners: all,
        requiresToken: config.scan_file.require_token,
        maxFileSize: scan.max_file_size,
      })
    : undefined;
  return {
    doors: { ...(uploads === undefined ? {} : { uploads }), ...(fileChecks === undefined ? {} : { fileChecks }) },
    shutdown: (signal) => reception.shutdown(signal),
    [Symbol.asyncDispose]: async () => store?.[Symbol.asyncDispose](),
  };
}

/** Never what a scanner made of it: the client would believe that its own bytes are there. */
function policyOf({ scan }: Config, scanners: readonly Scanner[], reports: GatewayReports): Policy {
  return policyFor({ scan: { ...scan, on_modified: "block" } }, scanners, reports);
}

/** Half of the spool, or as much as one file needs. */
function shareOf({ scan: { spool, max_file_size: maxFileSize } }: Config): SpoolBudget {
  return new SpoolBudget({ memory: spool.memory / 4, disk: Math.max(spool.disk / 2, maxFileSize), inMemory: PIECE_SIZE });
}
