import { type LookupAddress, lookup as systemLookup } from "node:dns";
import { type LookupFunction, type Socket, connect, isIP } from "node:net";
import { type TLSSocket, connect as connectTls } from "node:tls";
import { IcapError } from "../errors.ts";
import { asError, systemCode } from "./connection.ts";
import type { Target } from "./target.ts";
import type { TlsIdentity } from "./tls-identity.ts";

export interface DialRules {
  /** Milliseconds for everything: the name, all of its addresses, the TLS handshake. */
  readonly timeout: number;
  /** Undefined for a connection in the clear. */
  readonly identity: TlsIdentity | undefined;
  /** The system's by default. */
  readonly lookup?: LookupFunction | undefined;
}

/** Of one address that does not answer while there are others to try. */
const MAX_ATTEMPT = 1000;

/**
 * Resolves the name and connects to its addresses one after the other, until one of them takes the connection and, by TLS, proves who it is.
 * Nothing is left behind when it fails, but for a system's resolver that can't be interrupted; its answer is dropped.
 * @throws IcapError `connect_failed`, `timeout`; the signal's reason.
 */
export async function dial(target: Target, { timeout, identity, lookup }: DialRules, signal: AbortSignal): Promise<Socket> {
  const ended = new AbortController();
  const abort = (): void => ended.abort(asError(signal.reason));
  if (signal.aborted) abort();
  ended.signal.throwIfAborted();
  signal.addEventListener("abort", abort, { once: true });
  const timer = setTimeout(() => {
    ended.abort(new IcapError("timeout", `cannot connect to ${target.authority} within ${timeout} ms`));
  }, timeout);
  const failures: Error[] = [];
  try {
    const addresses = await resolve(target.host, lookup ?? systemLookup, ended.signal);
    if (addresses.length === 0) throw systemError("ENOTFOUND", "the name has no address");
    for (const [at, address] of addresses.entries()) {
      const share = at === addresses.length - 1 ? Infinity : Math.min(MAX_ATTEMPT, timeout / addresses.length);
      try {
        return await attempt(address, target.port, identity, share, ended.signal);
      } catch (error) {
        ended.signal.throwIfAborted();
        failures.push(asError(error));
      }
    }
  } catch (error) {
    ended.signal.throwIfAborted();
    failures.push(asError(error));
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
  }
  const cause = failures.length === 1 ? failures[0] : new AggregateError(failures);
  throw new IcapError("connect_failed", `cannot connect to ${target.authority}: ${systemCode(cause)}`, { cause });
}

function resolve(host: string, lookup: LookupFunction, signal: AbortSignal): Promise<readonly string[]> {
  if (isIP(host) !== 0) return Promise.resolve([host]);
  return new Promise((found, reject) => {
    const abort = (): void => reject(asError(signal.reason));
    signal.addEventListener("abort", abort, { once: true });
    lookup(host, { all: true }, (error, answer: string | LookupAddress[]) => {
      signal.removeEventListener("abort", abort);
      if (error !== null) reject(error);
      else found(typeof answer === "string" ? [answer] : answer.map(({ address }) => address));
    });
  });
}

/** One address, for `share` ms at most. */
function attempt(host: string, port: number, identity: TlsIdentity | undefined, share: number, signal: AbortSignal): Promise<Socket> {
  return new Promise((made, reject) => {
    signal.throwIfAborted();
    const socket = identity === undefined ? connect({ host, port }) : openTls(host, port, identity);
    const settle = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
      socket.off("error", abandon);
      socket.on("error", ignore);
    };
    const abandon = (error: Error): void => {
      settle();
      socket.destroy();
      reject(error);
    };
    const abort = (): void => abandon(asError(signal.reason));
    const timer = share === Infinity ? undefined : setTimeout(() => abandon(systemError("ETIMEDOUT", "the address did not answer")), share);
    signal.addEventListener("abort", abort, { once: true });
    socket.once("error", abandon);
    socket.once(identity === undefined ? "connect" : "secureConnect", () => {
      if (identity !== undefined && !(socket as TLSSocket).authorized) {
        abandon(systemError("ERR_TLS_UNAUTHORIZED", "the server's certificate was not verified"));
        return;
      }
      settle();
      socket.setNoDelay(true);
      made(socket);
    });
  });
}

function openTls(host: string, port: number, identity: TlsIdentity): TLSSocket {
  return connectTls({
    host,
    port,
    secureContext: identity.context,
    servername: identity.sni ?? "",
    checkServerIdentity: (_, certificate) => identity.check(certificate),
    // Said aloud, so that no environment variable has a say.
    rejectUnauthorized: true,
  });
}

function systemError(code: string, message: string): Error {
  return Object.assign(new Error(message), { code });
}

function ignore(): void {
  // The socket was given up, or is on its way to an owner, who will hear of its end.
}
