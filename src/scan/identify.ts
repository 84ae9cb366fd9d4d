/** Who asks, found out as far as a scanner is to be told. */
import type { Credentials, Identifier } from "../media/source.ts";
import type { Identity, ScanContext, Scanner } from "./scanner.ts";

export interface Asker {
  readonly credentials: Credentials;
  /** The client's address as seen through trusted proxies; empty when it can't be told. */
  readonly address: string;
}

/**
 * What these scanners are set to be told; undefined when that is nothing. What only advisory ones want holds nobody up by failing.
 * @throws GatewayError when the homeserver does not say whose token it is; the signal's reason.
 */
export async function identify(
  asker: Asker,
  scanners: readonly Scanner[],
  identifier: Identifier,
  signal: AbortSignal,
): Promise<ScanContext | undefined> {
  const wanted = new Set(scanners.flatMap(({ identities }) => identities));
  if (wanted.size === 0) return undefined;
  const [user, serverAddress] = await Promise.all([
    wanted.has("user") ? userOf(asker, isNeeded(scanners, "user"), identifier, signal) : undefined,
    wanted.has("server_ip") ? identifier.address() : undefined,
  ]);
  return {
    ...(wanted.has("client_ip") && asker.address !== "" ? { clientAddress: asker.address } : {}),
    ...(serverAddress === undefined ? {} : { serverAddress }),
    ...(user === undefined ? {} : { user }),
  };
}

/** Whether none of them is set to be told anything, so that nobody need be asked. */
export function tellsNothing(scanners: readonly Scanner[]): boolean {
  return scanners.every(({ identities }) => identities.length === 0);
}

async function userOf({ credentials }: Asker, needed: boolean, identifier: Identifier, signal: AbortSignal): Promise<string | undefined> {
  try {
    return await identifier.whoami(credentials, signal);
  } catch (error) {
    signal.throwIfAborted();
    if (needed) throw error;
    return undefined;
  }
}

function isNeeded(scanners: readonly Scanner[], identity: Identity): boolean {
  return scanners.some(({ required, identities }) => required && identities.includes(identity));
}
