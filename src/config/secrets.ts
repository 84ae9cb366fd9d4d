/** What the configuration names files for: passwords, certificates, keys. */
import { UnusableFileError, readTextFile } from "./files.ts";
import type { Config, RedisConfig, RedisSettings, Remark, Settings, TlsTexts } from "./schema.ts";

/** Bytes; a bundle of all the authorities that a system trusts has some 200 KiB. */
const LARGEST_SECRET = 4 * 1024;
const LARGEST_PEM = 1024 * 1024;
/** Characters, as `openssl rand -base64 32` makes them, and fewer. */
const MIN_SECRET = 32;

type Path = Remark["path"];
type Read = (path: Path, file: string | undefined, load: (file: string) => Promise<string>) => Promise<string | undefined>;

/** Reads all of them. What can't be used is told, all at once; the configuration is whole only when `problems` is empty. */
export async function readSecrets(settings: Settings): Promise<{ config: Config; problems: readonly Remark[] }> {
  const problems: Remark[] = [];
  const read: Read = async (path, file, load) => {
    if (file === undefined) return undefined;
    try {
      return await load(file);
    } catch (error) {
      if (!(error instanceof UnusableFileError)) throw error;
      problems.push({ path, message: `the file ${error.message}` });
      return undefined;
    }
  };
  const icap = await Promise.all(settings.icap.map((service, index) => withServiceSecrets(service, ["icap", index], read)));
  const { digest_secret_path: digestSecretPath, redis, ...cache } = settings.result_cache;
  const digestSecret = await read(["result_cache", "digest_secret_path"], digestSecretPath, readLongSecret);
  const config: Config = {
    ...settings,
    icap,
    result_cache: {
      ...cache,
      ...given("digest_secret_path", digestSecretPath),
      ...given("digest_secret", digestSecret),
      ...(redis === undefined ? {} : { redis: await withRedisSecrets(redis, ["result_cache", "redis"], read) }),
    },
  };
  return { config, problems };
}

async function withServiceSecrets({ tls, ...service }: Settings["icap"][number], path: Path, read: Read): Promise<Config["icap"][number]> {
  const password = await read([...path, "password_path"], service.password_path, readPassword);
  return {
    ...service,
    ...given("password", password),
    ...(tls === undefined ? {} : { tls: { ...tls, ...(await readTls(tls, [...path, "tls"], read)) } }),
  };
}

async function withRedisSecrets({ tls, ...redis }: RedisSettings, path: Path, read: Read): Promise<RedisConfig> {
  const password = await read([...path, "password_path"], redis.password_path, readPassword);
  const sentinelPassword = await read([...path, "sentinel_password_path"], redis.sentinel_password_path, readPassword);
  return {
    ...redis,
    ...given("password", password),
    ...given("sentinel_password", sentinelPassword),
    ...(tls === undefined ? {} : { tls: { ...tls, ...(await readTls(tls, [...path, "tls"], read)) } }),
  };
}

async function readTls(files: TlsFiles, path: Path, read: Read): Promise<TlsTexts> {
  const ca = await read([...path, "ca_path"], files.ca_path, readPem);
  const cert = await read([...path, "cert_path"], files.cert_path, readPem);
  const key = await read([...path, "key_path"], files.key_path, readPem);
  return { ...given("ca", ca), ...given("cert", cert), ...given("key", key) };
}

interface TlsFiles {
  readonly ca_path?: string;
  readonly cert_path?: string;
  readonly key_path?: string;
}

/** A password: a line of its own, as editors and `echo` write it. @throws UnusableFileError */
export async function readPassword(file: string): Promise<string> {
  const password = (await readTextFile(file, LARGEST_SECRET)).trimEnd();
  if (password === "") throw new UnusableFileError("is empty");
  if (/\p{Cc}/u.test(password)) throw new UnusableFileError("holds more than one line");
  return password;
}

async function readLongSecret(file: string): Promise<string> {
  const all = await readPassword(file);
  if (all.length < MIN_SECRET)
    throw new UnusableFileError(`has less than ${MIN_SECRET} characters: a shorter secret could be found by trying`);
  return all;
}

/** Certificates or a key. @throws UnusableFileError */
export async function readPem(file: string): Promise<string> {
  const text = await readTextFile(file, LARGEST_PEM);
  if (!text.includes("-----BEGIN ")) throw new UnusableFileError("holds nothing in PEM form");
  return text;
}

function given<Key extends string>(key: Key, value: string | undefined): { readonly [K in Key]?: string } {
  return value === undefined ? {} : ({ [key]: value } as { readonly [K in Key]?: string });
}
