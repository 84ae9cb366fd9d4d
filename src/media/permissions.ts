/**
 * The homeserver's yes to a token for a media, remembered for a while: what it would say now may be another thing, so this is off unless an operator
 * wants it. What it refuses is never remembered.
 */
import { hash, randomBytes } from "node:crypto";
import { LRUCache } from "lru-cache";
import { GatewayError } from "../errors.ts";
import { authorizationOf } from "./request-headers.ts";
import type {
  AskedEndpoint,
  Credentials,
  FetchedMedia,
  HomeserverAnswer,
  ForwardedRequest,
  Forwarder,
  Identifier,
  MediaSource,
  MediaVariant,
  Mxc,
} from "./source.ts";

export interface PermissionsOptions {
  /** Who is asked. */
  readonly homeserver: MediaSource & Forwarder & Identifier;
  /** Milliseconds that a yes counts, from the moment that it was asked for. */
  readonly ttl: number;
  /** Milliseconds, monotonic. */
  readonly now?: () => number;
}

/** Yeses that are kept at most; the one used longest ago goes first. */
const MAX_PERMISSIONS = 100_000;

/** All that a token was given since it was last refused: once it is refused, nothing that rests on this counts. */
interface Standing {
  readonly token: string;
}

interface Permission {
  readonly standing: Standing;
  readonly until: number;
}

export class Permissions implements MediaSource, Forwarder, Identifier {
  readonly #homeserver: MediaSource & Forwarder & Identifier;
  readonly #ttl: number;
  readonly #now: () => number;
  /**
   * Tokens are not kept, only SHA-256 of this and the token: without this, nobody can try tokens on it. That it could be lengthened, which an HMAC would
   * prevent, harms nobody, for it never leaves the process.
   */
  readonly #secret = randomBytes(32).toString("base64url");
  readonly #standings = new LRUCache<string, Standing>({ max: MAX_PERMISSIONS });
  readonly #permissions = new LRUCache<string, Permission>({ max: MAX_PERMISSIONS });
  /** How often each was refused. */
  readonly #refusals = new LRUCache<string, number>({ max: MAX_PERMISSIONS });

  constructor({ homeserver, ttl, now = () => performance.now() }: PermissionsOptions) {
    this.#homeserver = homeserver;
    this.#ttl = ttl;
    this.#now = now;
  }

  /** Whether the homeserver let this token read this media a moment ago. Never for a request without a token, or at an endpoint that looks at none. */
  permits(mxc: Mxc, variant: MediaVariant, credentials: Credentials, asked?: AskedEndpoint): boolean {
    const token = this.#tokenOf(credentials, asked);
    if (token === undefined) return false;
    const permission = this.#permissions.get(this.#digest(token, mxc, variant));
    return permission !== undefined && permission.until > this.#now() && this.#standings.get(token) === permission.standing;
  }

  async fetch(
    mxc: Mxc,
    variant: MediaVariant,
    credentials: Credentials,
    signal: AbortSignal,
    asked?: AskedEndpoint,
  ): Promise<FetchedMedia> {
    const token = this.#tokenOf(credentials, asked);
    if (token === undefined) return this.#homeserver.fetch(mxc, variant, credentials, signal, asked);
    const permission = { standing: this.#standingOf(token), until: this.#now() + this.#ttl };
    const name = this.#digest(token, mxc, variant);
    const refusals = this.#refusals.get(name);
    const media = await this.#unlessRefused(token, this.#homeserver.fetch(mxc, variant, credentials, signal, asked), name);
    // What was asked later may have been answered sooner, with a no.
    if (this.#refusals.get(name) === refusals) this.#permissions.set(name, permission);
    return media;
  }

  /** The homeserver has answered 401 to these credentials, whatever was asked: all that their token was given ends. */
  refused(credentials: Credentials): void {
    const token = this.#tokenOf(credentials);
    if (token !== undefined) this.#standings.delete(token);
  }

  async forward(request: ForwardedRequest, credentials: Credentials, signal: AbortSignal): Promise<HomeserverAnswer> {
    const answer = await this.#homeserver.forward(request, credentials, signal);
    if (answer.status === 401) this.refused(credentials);
    return answer;
  }

  whoami(credentials: Credentials, signal: AbortSignal): Promise<string | undefined> {
    const token = this.#tokenOf(credentials);
    const user = this.#homeserver.whoami(credentials, signal);
    return token === undefined ? user : this.#unlessRefused(token, user);
  }

  address(): Promise<string | undefined> {
    return this.#homeserver.address();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#permissions.clear();
    await this.#homeserver[Symbol.asyncDispose]();
  }

  /** Whatever is no yes ends the yes before it; that the token is none ends all that it was given. */
  async #unlessRefused<T>(token: string, answer: Promise<T>, name?: string): Promise<T> {
    try {
      return await answer;
    } catch (error) {
      if (name !== undefined) {
        this.#permissions.delete(name);
        this.#refusals.set(name, (this.#refusals.get(name) ?? 0) + 1);
      }
      if (error instanceof GatewayError && (error.code === "unknown_token" || error.code === "missing_token")) {
        this.#standings.delete(token);
      }
      throw error;
    }
  }

  #standingOf(token: string): Standing {
    const known = this.#standings.get(token);
    if (known !== undefined) return known;
    const standing = { token };
    this.#standings.set(token, standing);
    return standing;
  }

  /** What stands for the Authorization that goes to the homeserver; undefined where nothing is remembered: media that need not be there is another question. */
  #tokenOf(credentials: Credentials, asked?: AskedEndpoint): string | undefined {
    if (asked !== undefined && (asked.api !== "client/v1/media" || asked.allowRemote === false)) return undefined;
    const authorization = authorizationOf(credentials);
    return authorization && this.#hash(authorization);
  }

  #digest(token: string, { serverName, mediaId }: Mxc, variant: MediaVariant): string {
    const parameters = variant.kind === "download" ? [] : [variant.width, variant.height, variant.method, variant.animated];
    return this.#hash(JSON.stringify([token, serverName, mediaId, variant.kind, ...parameters]));
  }

  #hash(text: string): string {
    return hash("sha256", this.#secret + text, "base64url");
  }
}
