/** What the configuration names files for: passwords, certificates, keys. */
import { UnusableFileError, readTextFile } from "./files.ts";
import type { Config, Remark, Settings } from "./schema.ts";

/** Bytes; a bundle of all the authorities that a system trusts has some 200 KiB. */
const LARGEST_SECRET = 4 * 1024;
const LARGEST_PEM = 1024 * 1024;

/** Reads all of them. What can't be used is told, all at once; the configuration is whole only when `problems` is empty. */
export async function readSecrets(settings: Settings): Promise<{ config: Config; problems: readonly Remark[] }> {
  const problems: Remark[] = [];
  const read = async (path: Remark["path"], file: string | undefined, parse: (text: string) => string): Promise<string | undefined> => {
    if (file === undefined) return undefined;
    try {
      return parse(await readTextFile(file, parse === pem ? LARGEST_PEM : LARGEST_SECRET));
    } catch (error) {
      if (!(error instanceof UnusableFileError)) throw error;
      problems.push({ path, message: `the file ${error.message}` });
      return undefined;
    }
  };

  const icap = await Promise.all(
    settings.icap.map(async ({ tls, ...service }, index) => {
      const at = (...path: string[]): Remark["path"] => ["icap", index, ...path];
      const password = await read(at("password_path"), service.password_path, secret);
      if (tls === undefined) return { ...service, ...given("password", password) };
      const ca = await read(at("tls", "ca_path"), tls.ca_path, pem);
      const cert = await read(at("tls", "cert_path"), tls.cert_path, pem);
      const key = await read(at("tls", "key_path"), tls.key_path, pem);
      return {
        ...service,
        ...given("password", password),
        tls: { ...tls, ...given("ca", ca), ...given("cert", cert), ...given("key", key) },
      };
    }),
  );
  const { redis, ...cache } = settings.result_cache;
  const password = await read(["result_cache", "redis", "password_path"], redis?.password_path, secret);
  const config: Config = {
    ...settings,
    icap,
    result_cache: redis === undefined ? cache : { ...cache, redis: { ...redis, ...given("password", password) } },
  };
  return { config, problems };
}

/** A line of its own, as editors and `echo` write it. */
function secret(text: string): string {
  const password = text.trimEnd();
  if (password === "") throw new UnusableFileError("is empty");
  if (/\p{Cc}/u.test(password)) throw new UnusableFileError("holds more than one line");
  return password;
}

function pem(text: string): string {
  if (!text.includes("-----BEGIN ")) throw new UnusableFileError("holds nothing in PEM form");
  return text;
}

function given<Key extends string>(key: Key, value: string | undefined): { readonly [K in Key]?: string } {
  return value === undefined ? {} : ({ [key]: value } as { readonly [K in Key]?: string });
}
