/** The options that all `icap` commands have in common: which service, and how to ask it. */
import type { ParseArgsOptionsConfig } from "node:util";
import { IcapService, type IcapServiceOptions, PROFILE_NAMES } from "../../icap/index.ts";
import { UnusableFileError } from "../config/files.ts";
import type { Config } from "../config/schema.ts";
import { readPassword, readPem } from "../config/secrets.ts";
import { parseDuration } from "../config/units.ts";
import { UsageError } from "./command-line.ts";

export const SERVICE_OPTIONS = {
  config: { type: "string", short: "c" },
  service: { type: "string" },
  profile: { type: "string" },
  method: { type: "string" },
  preview: { type: "string" },
  "transfer-lists": { type: "string" },
  "blocked-by": { type: "string", multiple: true },
  header: { type: "string", multiple: true },
  ca: { type: "string" },
  cert: { type: "string" },
  key: { type: "string" },
  "server-name": { type: "string" },
  "min-version": { type: "string" },
  user: { type: "string" },
  "password-file": { type: "string" },
  timeout: { type: "string" },
  json: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const satisfies ParseArgsOptionsConfig;

export const SERVICE_USAGE = `  -c, --config FILE, --service NAME
                       takes the service and all its options from the gateway's configuration, in place of URL
  --profile NAME       whose answers these are: ${listOf(PROFILE_NAMES)}
  --method METHOD      RESPMOD or REQMOD; the profile's by default
  --preview HOW        never (as by default), required or trusted
  --transfer-lists HOW ignored (as by default) or trusted: what the service's OPTIONS say of types that it does not want
  --blocked-by HEADER  a header that means "blocked"; may be repeated
  --header "NAME: VALUE"
                       is sent with each request; may be repeated
  --ca FILE            authorities to believe in place of the system's (PEM), for icaps://
  --cert FILE, --key FILE
                       the client's own certificate and its key (PEM), for icaps://
  --server-name NAME   whose certificate the server must have, for icaps://; the URL's host by default
  --min-version VERSION
                       TLSv1.2 (as by default) or TLSv1.3, for icaps://
  --user NAME, --password-file FILE
                       for Proxy-Authorization; a command line would show the password to others
  --timeout DURATION   what one answer may take, such as 30s or 5m; 5m by default
  --json               JSON instead of a table
  -h, --help           shows this
`;

/** As `parseArgs` gives them. */
export interface ServiceValues {
  readonly config?: string | undefined;
  readonly service?: string | undefined;
  readonly profile?: string | undefined;
  readonly method?: string | undefined;
  readonly preview?: string | undefined;
  readonly "transfer-lists"?: string | undefined;
  readonly "blocked-by"?: string[] | undefined;
  readonly header?: string[] | undefined;
  readonly ca?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
  readonly "server-name"?: string | undefined;
  readonly "min-version"?: string | undefined;
  readonly user?: string | undefined;
  readonly "password-file"?: string | undefined;
  readonly timeout?: string | undefined;
}

/** The service that is to be looked at. */
export interface ChosenService {
  /** One for each of its replicas. */
  readonly replicas: readonly [IcapServiceOptions, ...IcapServiceOptions[]];
  /** Milliseconds that one answer may take. */
  readonly timeout: number;
  /** Undefined for a service that is named by its URL. */
  readonly configured: ConfiguredService | undefined;
}

/** What the configuration says of a service beside how to ask it. */
export interface ConfiguredService {
  /** The profile's own by default. */
  readonly describeType: boolean | undefined;
  /** What it must catch, or the gateway does not use it. */
  readonly canaries: Config["icap"][number]["canary"];
  /** Bytes that it is to prove that it scans; 0: no matter. */
  readonly size: number;
  readonly context: Config["icap"][number]["context"];
}

const METHODS = ["RESPMOD", "REQMOD"] as const;
const PREVIEWS = ["never", "required", "trusted"] as const;
const TRANSFER_LISTS = ["ignored", "trusted"] as const;
const TLS_VERSIONS = ["TLSv1.2", "TLSv1.3"] as const;
const DEFAULT_TIMEOUT = 300_000;
const DEFAULT_CONNECT_TIMEOUT = 5_000;
/** What a timer can hold. */
const LONGEST_TIMEOUT = 2 ** 31 - 1;
/** Options that describe a service. */
const DESCRIBING = [
  "profile",
  "method",
  "preview",
  "transfer-lists",
  "blocked-by",
  "header",
  "ca",
  "cert",
  "key",
  "server-name",
  "min-version",
  "user",
  "password-file",
] as const;

/**
 * @param words the command's words: without `--service`, the first is the URL
 * @returns the service, and the words that are left
 * @throws UsageError for a value that can't be, or a file that can't be read; ConfigError.
 */
export async function chooseService(values: ServiceValues, words: readonly string[]): Promise<[ChosenService, readonly string[]]> {
  const timeout = timeoutFrom(values);
  const { config, service } = values;
  if (config === undefined && service === undefined) {
    const [url, ...rest] = words;
    if (url === undefined) throw new UsageError("the service's URL is missing");
    return [{ replicas: [await replicaFrom(url, values, timeout)], timeout, configured: undefined }, rest];
  }
  if (config === undefined || service === undefined) throw new UsageError("-c FILE and --service NAME go together");
  for (const name of DESCRIBING) {
    if (values[name] !== undefined) throw new UsageError(`--${name} can't stand beside --service: the configuration says it`);
  }
  return [await configuredService(config, service, timeout), words];
}

async function configuredService(file: string, name: string, timeout: number): Promise<ChosenService> {
  const [{ loadConfig }, { icapOptions }] = await Promise.all([import("../config/load.ts"), import("../config/icap-options.ts")]);
  const { config } = await loadConfig(file);
  const found = config.icap.find((one) => one.name === name);
  const [first, ...others] = found === undefined ? [] : icapOptions(found);
  if (found === undefined || first === undefined)
    throw new UsageError(`${file} has no ICAP service ${name}, but ${config.icap.map((one) => one.name).join(", ") || "none"}`);
  const { canary, context, describe_type: describeType, prove_size: provesSize } = found;
  const size = provesSize && canary.length > 0 ? config.scan.max_file_size : 0;
  return { replicas: [first, ...others], timeout, configured: { describeType, canaries: canary, size, context } };
}

function timeoutFrom({ timeout }: ServiceValues): number {
  if (timeout === undefined) return DEFAULT_TIMEOUT;
  const parsed = parseDuration(timeout);
  if (parsed === undefined || parsed < 1 || parsed > LONGEST_TIMEOUT)
    throw new UsageError("--timeout must be a duration such as 30s or 5m");
  return parsed;
}

async function replicaFrom(url: string, values: ServiceValues, timeout: number): Promise<IcapServiceOptions> {
  const profile = oneOf("--profile", PROFILE_NAMES, values.profile);
  const method = oneOf("--method", METHODS, values.method);
  const preview = oneOf("--preview", PREVIEWS, values.preview);
  const transferLists = oneOf("--transfer-lists", TRANSFER_LISTS, values["transfer-lists"]);
  const tls = await tlsFrom(values);
  const credentials = await credentialsFrom(values);
  return {
    url,
    ...(profile === undefined ? {} : { profile }),
    ...(method === undefined ? {} : { method }),
    ...(preview === undefined ? {} : { preview }),
    ...(transferLists === undefined ? {} : { transferLists }),
    ...(values.header === undefined ? {} : { fields: values.header.map(fieldFrom) }),
    ...(values["blocked-by"] === undefined ? {} : { blockedBy: values["blocked-by"] }),
    ...(tls === undefined ? {} : { tls }),
    ...(credentials === undefined ? {} : { credentials }),
    timeouts: { connect: Math.min(DEFAULT_CONNECT_TIMEOUT, timeout), answer: timeout },
  };
}

/** A client of the service. @throws UsageError for options that can't be used together, or a URL that is none. */
export function openService(options: IcapServiceOptions): IcapService {
  try {
    return new IcapService(options);
  } catch (error) {
    if (error instanceof TypeError) throw new UsageError(error.message, { cause: error });
    throw error;
  }
}

async function tlsFrom(values: ServiceValues): Promise<IcapServiceOptions["tls"]> {
  if ((values.cert === undefined) !== (values.key === undefined)) throw new UsageError("--cert and --key go together");
  const [ca, cert, key] = await Promise.all((["ca", "cert", "key"] as const).map((name) => read(`--${name}`, values[name], readPem)));
  const serverName = values["server-name"];
  const minVersion = oneOf("--min-version", TLS_VERSIONS, values["min-version"]);
  if ([ca, cert, serverName, minVersion].every((value) => value === undefined)) return undefined;
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(serverName === undefined ? {} : { serverName }),
    ...(minVersion === undefined ? {} : { minVersion }),
  };
}

async function credentialsFrom({ user, "password-file": file }: ServiceValues): Promise<IcapServiceOptions["credentials"]> {
  if ((user === undefined) !== (file === undefined)) throw new UsageError("--user and --password-file go together");
  const password = await read("--password-file", file, readPassword);
  return user === undefined || password === undefined ? undefined : { username: user, password };
}

async function read(option: string, file: string | undefined, load: (file: string) => Promise<string>): Promise<string | undefined> {
  if (file === undefined) return undefined;
  try {
    return await load(file);
  } catch (error) {
    if (error instanceof UnusableFileError) throw new UsageError(`${option}: ${file} ${error.message}`, { cause: error });
    throw error;
  }
}

function fieldFrom(text: string): readonly [name: string, value: string] {
  const [, name, value] = /^([^:\s]+):[ \t]*(.*?)[ \t]*$/s.exec(text) ?? [];
  if (name === undefined || value === undefined) throw new UsageError('--header must be a name and a value, such as "X-Tenant: chat"');
  return [name, value];
}

function oneOf<const Name extends string>(option: string, names: readonly Name[], value: string | undefined): Name | undefined {
  if (value === undefined) return undefined;
  const found = names.find((name) => name === value);
  if (found === undefined) throw new UsageError(`${option} must be one of ${names.join(", ")}`);
  return found;
}

/** In lines that stand under one another in the help. */
function listOf(names: readonly string[]): string {
  const lines: string[] = [];
  for (const name of names) {
    const last = lines.at(-1);
    if (last === undefined || last.length + name.length > 66) lines.push(name);
    else lines[lines.length - 1] = `${last}, ${name}`;
  }
  return lines.join(`,\n${" ".repeat(23)}`);
}
