/** The gateway as it is shipped, from a configuration file, before a fake homeserver and whatever scanner the configuration names. */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { loadConfig } from "../../src/config/load.ts";
import { createGateway, type Gateway } from "../../src/gateway.ts";
import { BASE_PATH } from "../../src/http/app.ts";
import { createLogger } from "../../src/observability/log.ts";
import { FakeHomeserver } from "./fake-homeserver.ts";

export const TOKEN = "alice";

export interface RealGateway extends AsyncDisposable {
  readonly gateway: Gateway;
  readonly homeserver: FakeHomeserver;
  readonly url: string;
  readonly directory: string;
  /** The log so far. */
  log(): string;
  put(bytes: Uint8Array): string;
  /** A path that begins with a slash is whole, any other is one of the scanner API's. */
  get(path: string, token?: string): Promise<{ status: number; body: Buffer; json: Record<string, unknown> }>;
  post(path: string, body: unknown, token?: string): Promise<{ status: number; body: Buffer; json: Record<string, unknown> }>;
  /** Of the admin listener. */
  readiness(): Promise<{ status: number; problems: string[] }>;
}

/** @param sections of the configuration file; ports, homeserver and key are filled in. */
export async function startGateway(sections: Readonly<Record<string, object>>): Promise<RealGateway> {
  await using stack = new AsyncDisposableStack();
  const directory = stack.adopt(await mkdtemp(join(tmpdir(), "mig-gateway-")), (path) => rm(path, { recursive: true }));
  const homeserver = stack.use(await FakeHomeserver.start());
  homeserver.addToken(TOKEN);
  const file = join(directory, "config.yaml");
  const config = {
    ...sections,
    web: { port: 0, ...sections["web"] },
    admin: { port: 0, ...sections["admin"] },
    scan: { temp_directory: directory, ...sections["scan"] },
    download: { base_homeserver_url: homeserver.url, ...sections["download"] },
    crypto: { request_secret_path: join(directory, "request_secret"), ...sections["crypto"] },
  };
  await writeFile(file, stringify(config));
  const lines: string[] = [];
  const log = createLogger({ level: "debug", stream: { write: (line: string) => void lines.push(line) } });
  const gateway = stack.use(await createGateway((await loadConfig(file)).config, { log }));
  const url = `http://127.0.0.1:${gateway.address.port}`;
  const parts = stack.move();

  const request: RealGateway["post"] = async (path, body, token) => {
    const response = await fetch(path.startsWith("/") ? `${url}${path}` : `${url}${BASE_PATH}/${path}`, {
      ...(body === undefined ? {} : { method: "POST", body: JSON.stringify(body) }),
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
    });
    const bytes = Buffer.from(await response.arrayBuffer());
    const isJson = response.headers.get("content-type")?.startsWith("application/json") === true;
    return { status: response.status, body: bytes, json: isJson ? (JSON.parse(bytes.toString()) as Record<string, unknown>) : {} };
  };
  return {
    gateway,
    homeserver,
    url,
    directory,
    log: () => lines.join(""),
    put: (bytes) => {
      const { serverName, mediaId } = homeserver.put(randomBytes(12).toString("hex"), { bytes });
      return `${serverName}/${mediaId}`;
    },
    get: (path, token) => request(path, undefined, token),
    post: request,
    readiness: async () => {
      const response = await fetch(`http://127.0.0.1:${gateway.adminAddress.port}/health/ready`);
      const { problems } = (await response.json()) as { problems: string[] };
      return { status: response.status, problems };
    },
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}
