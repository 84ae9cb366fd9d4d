/** A real Synapse on loopback: SQLite, authenticated media, registration by shared secret, federation over TLS with the test certificate. */
import { createHmac, randomBytes } from "node:crypto";
import { fileURLToPath } from "node:url";
import { stringify } from "yaml";
import { startLocalMachine } from "./peers/local-machine.ts";
import type { Machine, Port } from "./peers/machine.ts";
import { Peer } from "./peers/peer.ts";
import { python } from "./synapse-environment.ts";

const TLS = fileURLToPath(new URL("../fixtures/tls/", import.meta.url));

/** So high that no test meets them. */
const UNLIMITED = { per_second: 10_000, burst_count: 10_000 };

export interface SynapseOptions {
  /** In place of, or beside, what stands in homeserver.yaml: rate limits, for example, which are practically off otherwise. */
  readonly settings?: Readonly<Record<string, unknown>>;
}

export interface SynapseUser {
  readonly userId: string;
  readonly token: string;
  readonly deviceId: string;
  readonly password: string;
}

export interface RefreshableUser extends SynapseUser {
  readonly refreshToken: string;
}

export interface SynapseAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Buffer;
  /** The body, where it is a JSON object. */
  readonly json: Record<string, unknown>;
}

export interface UploadedMedia {
  /** `server/media`, as it stands in paths. */
  readonly path: string;
  readonly mxc: string;
}

export class Synapse extends Peer {
  protected readonly name = "Synapse";
  readonly #python: string;
  readonly #federation: Port;
  readonly #secret = randomBytes(16).toString("hex");
  #admin: SynapseUser | undefined;

  constructor(python: string, machine: Machine, directory: string, at: Port, federation: Port) {
    super(machine, directory, at);
    this.#python = python;
    this.#federation = federation;
  }

  /** Of the client-server API, without TLS: for the gateway and for reverse proxies. */
  get url(): string {
    return `http://${this.host}:${this.port}`;
  }

  /** Its federation API is there, over TLS. */
  get serverName(): string {
    return `${this.#federation.host}:${this.#federation.outside}`;
  }

  async prepare({ settings }: SynapseOptions): Promise<void> {
    const directory = this.directory;
    const listener = { type: "http", bind_addresses: ["127.0.0.1"] };
    const config = {
      server_name: this.serverName,
      listeners: [
        // For whom its rate limits count; the first address in X-Forwarded-For, as behind a reverse proxy.
        { ...listener, port: this.at.inside, x_forwarded: true, resources: [{ names: ["client"] }] },
        { ...listener, port: this.#federation.inside, tls: true, resources: [{ names: ["federation"] }] },
      ],
      tls_certificate_path: `${TLS}cert.pem`,
      tls_private_key_path: `${TLS}key.pem`,
      federation_verify_certificates: false,
      // Servers on loopback may talk to each other.
      ip_range_blacklist: [],
      trusted_key_servers: [],
      suppress_key_server_warning: true,
      database: { name: "sqlite3", args: { database: `${directory}/homeserver.db` } },
      media_store_path: `${directory}/media`,
      signing_key: `ed25519 a_test ${unpadded(randomBytes(32))}`,
      macaroon_secret_key: randomBytes(16).toString("hex"),
      form_secret: randomBytes(16).toString("hex"),
      registration_shared_secret: this.#secret,
      allow_guest_access: true,
      // Tokens whose users can't refresh them live on.
      refreshable_access_token_lifetime: "12s",
      enable_authenticated_media: true,
      max_upload_size: "200M",
      log_config: `${directory}/log.yaml`,
      report_stats: false,
      rc_login: { address: UNLIMITED, account: UNLIMITED, failed_attempts: UNLIMITED },
      rc_registration: UNLIMITED,
      rc_message: UNLIMITED,
      rc_joins: { local: UNLIMITED, remote: UNLIMITED },
      rc_invites: { per_room: UNLIMITED, per_user: UNLIMITED, per_issuer: UNLIMITED },
      rc_media_create: UNLIMITED,
      ...settings,
    };
    await this.machine.write(`${directory}/homeserver.yaml`, stringify(config));
    await this.machine.write(`${directory}/log.yaml`, stringify(LOG));
  }

  /** A new user with a device of its own. */
  async registerUser(name: string, { admin = false } = {}): Promise<SynapseUser> {
    const { nonce } = await this.#json("GET", "/_synapse/admin/v1/register");
    const password = randomBytes(12).toString("hex");
    const mac = createHmac("sha1", this.#secret)
      .update([nonce, name, password, admin ? "admin" : "notadmin"].join("\0"))
      .digest("hex");
    const body = { nonce, username: name, password, admin, mac };
    return { ...userOf(await this.#json("POST", "/_synapse/admin/v1/register", { body })), password };
  }

  async registerGuest(): Promise<Omit<SynapseUser, "password">> {
    return userOf(await this.#json("POST", "/_matrix/client/v3/register?kind=guest", { body: {} }));
  }

  /** Another device of this user, whose token expires after 5 s and can be refreshed. */
  async logInForRefresh({ userId, password }: SynapseUser): Promise<RefreshableUser> {
    const body = { type: "m.login.password", identifier: { type: "m.id.user", user: userId }, password, refresh_token: true };
    const answer = await this.#json("POST", "/_matrix/client/v3/login", { body });
    return { ...userOf(answer), password, refreshToken: String(answer["refresh_token"]) };
  }

  /** @returns the new token */
  async refresh({ refreshToken }: RefreshableUser): Promise<string> {
    const answer = await this.#json("POST", "/_matrix/client/v3/refresh", { body: { refresh_token: refreshToken } });
    return String(answer["access_token"]);
  }

  async logOut(token: string): Promise<void> {
    await this.#json("POST", "/_matrix/client/v3/logout", { token, body: {} });
  }

  /** Room version and preset are Synapse's own defaults. @returns the room's ID */
  async createRoom(token: string, body: Readonly<Record<string, unknown>> = {}): Promise<string> {
    return String((await this.#json("POST", "/_matrix/client/v3/createRoom", { token, body }))["room_id"]);
  }

  async upload(token: string, bytes: Uint8Array, { contentType = "application/octet-stream", name = "" } = {}): Promise<UploadedMedia> {
    const query = name === "" ? "" : `?filename=${encodeURIComponent(name)}`;
    const answer = await this.request("POST", `/_matrix/media/v3/upload${query}`, { token, body: bytes, contentType });
    if (answer.status !== 200) throw new Error(`Synapse answers an upload with ${answer.status} ${answer.body.toString().slice(0, 500)}`);
    return mediaAt(answer.json["content_uri"]);
  }

  /** A media ID whose content is still to come; `complete` brings it. */
  async createMedia(token: string): Promise<UploadedMedia & { complete(bytes: Uint8Array): Promise<void> }> {
    const media = mediaAt((await this.#json("POST", "/_matrix/media/v1/create", { token, body: {} }))["content_uri"]);
    return {
      ...media,
      complete: async (bytes) => {
        const answer = await this.request("PUT", `/_matrix/media/v3/upload/${media.path}`, { token, body: bytes });
        if (answer.status !== 200) throw new Error(`Synapse answers a late upload with ${answer.status} ${answer.body.toString()}`);
      },
    };
  }

  /** As an administrator would. */
  async quarantine({ path }: UploadedMedia): Promise<void> {
    await this.#json("POST", `/_synapse/admin/v1/media/quarantine/${path}`, { token: await this.#adminToken(), body: {} });
  }

  async deleteMedia({ path }: UploadedMedia): Promise<void> {
    await this.#json("DELETE", `/_synapse/admin/v1/media/${path}`, { token: await this.#adminToken() });
  }

  /** From where this user's only device was last seen, as the user and administrators are shown it; it takes Synapse seconds to write that down. */
  async lastSeenAddress({ userId }: SynapseUser): Promise<string | undefined> {
    const path = `/_synapse/admin/v2/users/${encodeURIComponent(userId)}/devices`;
    const { devices } = await this.#json("GET", path, { token: await this.#adminToken() });
    return (devices as readonly { last_seen_ip?: string }[])[0]?.last_seen_ip;
  }

  /** Any request to the client-server or admin API; `body` is sent as it is, or as JSON. */
  async request(method: string, path: string, options: RequestOptions = {}): Promise<SynapseAnswer> {
    const { token, body, contentType = body instanceof Uint8Array ? "application/octet-stream" : "application/json" } = options;
    const response = await fetch(`${this.url}${path}`, {
      method,
      headers: {
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(body === undefined ? {} : { "content-type": contentType }),
      },
      ...(body === undefined ? {} : { body: body instanceof Uint8Array ? Uint8Array.from(body) : JSON.stringify(body) }),
    });
    const bytes = Buffer.from(await response.arrayBuffer());
    const isJson = response.headers.get("content-type")?.startsWith("application/json") === true;
    return { status: response.status, headers: response.headers, body: bytes, json: isJson ? parsed(bytes) : {} };
  }

  protected command(): readonly string[] {
    return [this.#python, "-I", "-m", "synapse.app.homeserver", "-c", `${this.directory}/homeserver.yaml`];
  }

  protected async ready(): Promise<void> {
    const { status } = await this.request("GET", "/health");
    if (status !== 200) throw new Error(`Synapse answers /health with ${status}`);
  }

  async #adminToken(): Promise<string> {
    this.#admin ??= await this.registerUser("admin", { admin: true });
    return this.#admin.token;
  }

  /** @throws Error for any status but 200 */
  async #json(method: string, path: string, options: RequestOptions = {}): Promise<Record<string, unknown>> {
    const answer = await this.request(method, path, options);
    if (answer.status === 200) return answer.json;
    throw new Error(`Synapse answers ${method} ${path} with ${answer.status} ${answer.body.toString().slice(0, 500)}`);
  }
}

interface RequestOptions {
  readonly token?: string;
  readonly body?: object;
  readonly contentType?: string;
}

const LOG = {
  version: 1,
  formatters: { precise: { format: "%(asctime)s %(levelname)s %(name)s %(request)s %(message)s" } },
  filters: { context: { "()": "synapse.logging.context.LoggingContextFilter", request: "" } },
  handlers: { console: { class: "logging.StreamHandler", formatter: "precise", filters: ["context"] } },
  root: { level: "WARNING", handlers: ["console"] },
  disable_existing_loggers: false,
};

function userOf(answer: Readonly<Record<string, unknown>>): Omit<SynapseUser, "password"> {
  const { user_id: userId, access_token: token, device_id: deviceId } = answer;
  return { userId: String(userId), token: String(token), deviceId: String(deviceId) };
}

function mediaAt(contentUri: unknown): UploadedMedia {
  const mxc = String(contentUri);
  return { mxc, path: mxc.slice("mxc://".length) };
}

function parsed(bytes: Buffer): Record<string, unknown> {
  const value: unknown = JSON.parse(bytes.toString());
  return typeof value === "object" && value !== null ? { ...value } : {};
}

function unpadded(bytes: Buffer): string {
  return bytes.toString("base64").replace(/=+$/u, "");
}

/**
 * Starts one, on this machine whatever the other peers run on. Two of them find each other by their server names.
 * @throws Error that says what is missing, or with the end of Synapse's log
 */
export async function startSynapse(options: SynapseOptions = {}): Promise<Synapse> {
  const machine = startLocalMachine();
  const [interpreter, directory, at, federation] = await Promise.all([
    python(),
    machine.makeDirectory(),
    machine.freePort(),
    machine.freePort(),
  ]);
  const synapse = new Synapse(interpreter, machine, directory, at, federation);
  await synapse.prepare(options);
  await synapse.restart();
  return synapse;
}
