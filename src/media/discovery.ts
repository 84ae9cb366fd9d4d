/** Where a server's media is, when no homeserver is configured: https://spec.matrix.org/v1.19/client-server-api/#well-known-uris */
import { LRUCache } from "lru-cache";
import { guardUrl } from "./address-guard.ts";
import type { AddressFilter } from "./address-guard.ts";
import { readBounded } from "./bounded-body.ts";
import type { Answer } from "./outbound.ts";

export interface DiscoveryOptions {
  /** Asks a server that nobody configured: no credentials, public addresses only. */
  readonly ask: (url: URL, signal: AbortSignal) => Promise<Answer>;
  readonly isAllowedAddress: AddressFilter;
  /** Milliseconds. */
  readonly now: () => number;
}

const MAX_SERVERS = 10_000;
const MAX_WELL_KNOWN = 64 * 1024;
const MAX_BASE_URL = 1024;
/** All of one discovery, redirects included; milliseconds, as below. */
const DEADLINE = 10_000;
/** How long an answer counts: a base URL, or that there is no file (404). */
const TTL_ANSWERED = 60 * 60 * 1000;
/** How long a server that could not be asked, or answered nonsense, is taken to have no file. */
const TTL_FAILED = 2 * 60 * 1000;

/** One server's discovery under way, shared by all who wait for it, and ended when the last of them leaves. */
interface Flight {
  readonly result: Promise<string>;
  readonly abandon: AbortController;
  waiting: number;
}

export class Discovery {
  readonly #options: DiscoveryOptions;
  readonly #known: LRUCache<string, string>;
  readonly #flights = new Map<string, Flight>();

  constructor(options: DiscoveryOptions) {
    this.#options = options;
    // ttlResolution 0: the time is asked for anew at each look, not remembered for a tick of the real clock.
    this.#known = new LRUCache({ max: MAX_SERVERS, perf: { now: options.now }, ttlResolution: 0 });
  }

  /**
   * The base URL of a server's client API, without a slash at its end: what its well-known file says, else `https://` and the server's
   * name. The caller's requests to it are as little trusted as the file.
   * @throws the signal's reason
   */
  async baseUrl(serverName: string, signal: AbortSignal): Promise<string> {
    signal.throwIfAborted();
    const known = this.#known.get(serverName);
    if (known !== undefined) return known;

    const flight = this.#flights.get(serverName) ?? this.#depart(serverName);
    flight.waiting++;
    try {
      return await unlessAborted(flight.result, signal);
    } finally {
      if (--flight.waiting === 0) {
        if (this.#flights.get(serverName) === flight) this.#flights.delete(serverName);
        flight.abandon.abort();
      }
    }
  }

  #depart(serverName: string): Flight {
    const abandon = new AbortController();
    const flight = { result: this.#discover(serverName, abandon.signal), abandon, waiting: 0 };
    this.#flights.set(serverName, flight);
    return flight;
  }

  async #discover(serverName: string, abandoned: AbortSignal): Promise<string> {
    const fallback = `https://${serverName}`;
    const signal = AbortSignal.any([abandoned, AbortSignal.timeout(DEADLINE)]);
    let found: string | undefined;
    let ttl = TTL_ANSWERED;
    try {
      found = await this.#readWellKnown(new URL(`${fallback}/.well-known/matrix/client`), signal);
    } catch {
      // Unreachable, refused, nonsense or out of time: what is asked for next says so in its own error.
      if (abandoned.aborted) return fallback;
      ttl = TTL_FAILED;
    }
    const baseUrl = found ?? fallback;
    this.#known.set(serverName, baseUrl, { ttl });
    return baseUrl;
  }

  /** @returns undefined when the server has no file */
  async #readWellKnown(url: URL, signal: AbortSignal): Promise<string | undefined> {
    const { statusCode, body } = await this.#options.ask(url, signal);
    const bytes = await readBounded(body, MAX_WELL_KNOWN, signal);
    if (statusCode === 404) return undefined;
    if (statusCode !== 200 || bytes === undefined) throw new Error("no usable well-known file");
    return this.#checkBaseUrl(baseUrlIn(JSON.parse(bytes.toString("utf8"))));
  }

  #checkBaseUrl(text: unknown): string {
    const url = typeof text === "string" && text.length <= MAX_BASE_URL ? URL.parse(text) : null;
    if (url === null || url.search !== "" || url.hash !== "") throw new Error("no usable base URL");
    guardUrl(url, this.#options.isAllowedAddress);
    return withoutTrailingSlash(url);
  }
}

/** A base URL that paths can be appended to. */
export function withoutTrailingSlash(url: URL): string {
  return url.origin + url.pathname.replace(/\/+$/, "");
}

function baseUrlIn(wellKnown: unknown): unknown {
  if (typeof wellKnown !== "object" || wellKnown === null || !("m.homeserver" in wellKnown)) return undefined;
  const homeserver = wellKnown["m.homeserver"];
  return typeof homeserver === "object" && homeserver !== null && "base_url" in homeserver ? homeserver.base_url : undefined;
}

/** The result of work that ends by its own means; or the signal's reason, without ending the work. */
function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    // eslint-disable-next-line typescript/prefer-promise-reject-errors -- the reason is the caller's own
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
