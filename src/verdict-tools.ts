/** What `matrix-icap-gateway verdict` works with: the stores of a configuration, without a gateway. */
import { existsSync } from "node:fs";
import type { VerdictTools } from "./command/verdict-tools.ts";
import type { Config } from "./config/load.ts";
import { Homeserver } from "./media/homeserver.ts";
import { createLogger } from "./observability/log.ts";
import { createMetrics } from "./observability/metrics.ts";
import { GatewayReports } from "./observability/reports.ts";
import type { Policy } from "./scan/policy.ts";
import type { ScanContext } from "./scan/scanner.ts";
import { openScanners, policyFor } from "./scanners.ts";
import { openRecords, openRequestKeys, secretsOf, ttlsOf } from "./stores.ts";
import { VerdictKeys } from "./verdicts/keys.ts";
import { isOnBlockList } from "./verdicts/overrides-block-list.ts";
import { OverrideFileWriter } from "./verdicts/overrides-file-writer.ts";
import { SharedOverrideWriter } from "./verdicts/overrides-shared-writer.ts";
import { OverrideError } from "./verdicts/overrides.ts";
import { SharedVerdictStore } from "./verdicts/shared-verdicts.ts";

/** @throws OverrideError when there is no request secret yet, KeyFileError when it can't be used. */
export async function openVerdictTools(config: Config): Promise<VerdictTools> {
  await using opened = new AsyncDisposableStack();
  // A gateway makes it, under its own user; what is sealed with another one means nothing to it.
  const { request_secret_path: secretPath } = config.crypto;
  if (secretPath !== undefined && !existsSync(secretPath)) {
    throw new OverrideError(`${secretPath} is not there yet: start the gateway once, or run this in its working directory`);
  }
  const requestKeys = opened.adopt(await openRequestKeys(config), (open) => open.free());
  const derive = secretsOf(config, requestKeys);
  const keys = new VerdictKeys(derive("verdict keys"));
  // What goes wrong is told by the command itself.
  const log = createLogger({ level: "fatal" });
  const records = await openRecords(config, derive, log, { publicKey: requestKeys.publicKey, onDropped: () => undefined });
  if (records !== undefined) opened.use(records);
  const { overrides_path: path, blocked_hashes_path: list, max_size: maxEntries } = config.result_cache;
  const overrides =
    records === undefined
      ? new OverrideFileWriter({ path, secret: derive("overrides"), keys })
      : new SharedOverrideWriter({ records, keys, conflict: () => records.conflict });
  const policy = policyOf(config, log);
  const verdicts = records && opened.use(new SharedVerdictStore({ records, ttl: ttlsOf(config), maxEntries }));
  const parts = opened.move();
  return {
    overrides,
    ...(list === undefined ? {} : { isListed: (sha256) => isOnBlockList(list, sha256) }),
    ...(verdicts === undefined
      ? {}
      : {
          lookup: async (sha256, asker) => {
            const audience = policy.audience({ ...asker, ...(await serverOf(config, policy)) });
            return (await verdicts.verdict(keys.content(sha256, policy.fingerprint, audience)))?.record;
          },
        }),
    keptApartBy: [
      ...(policy.identities.includes("user") ? (["user"] as const) : []),
      ...(policy.identities.includes("client_ip") ? (["clientAddress"] as const) : []),
    ],
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}

/** What verdicts on content are kept under, as this configuration's scanners and lists of types have it. */
function policyOf(config: Config, log: ReturnType<typeof createLogger>): Policy {
  const reports = new GatewayReports(log, createMetrics());
  const { icap, scripts } = openScanners(config, undefined, reports, log);
  return policyFor(config, [...icap, ...scripts], reports);
}

/** The homeserver's address, where scanners are told of it. */
async function serverOf({ download }: Config, { identities }: Policy): Promise<Pick<ScanContext, "serverAddress">> {
  if (!identities.includes("server_ip") || download.base_homeserver_url === undefined) return {};
  await using homeserver = new Homeserver({ baseUrl: download.base_homeserver_url, additionalHeaders: {}, maxDecodedSize: 0 });
  const serverAddress = await homeserver.address();
  return serverAddress === undefined ? {} : { serverAddress };
}
