/** Everything that a deployment has: Synapse, the gateway before it, c-icap, clamd and Redis behind. */
import { expect, vi } from "vitest";
import { type CIcap, startCIcap } from "../support/peers/c-icap.ts";
import { startClamd } from "../support/peers/clamd.ts";
import { startRedis } from "../support/peers/redis.ts";
import { type RealGateway, startGateway } from "../support/real-gateway.ts";
import { startSynapse, type Synapse, type SynapseOptions } from "../support/synapse.ts";
import { Relay } from "./relay.ts";

export interface Stack extends AsyncDisposable {
  readonly synapse: Synapse;
  /** Between the gateway and Synapse. */
  readonly relay: Relay;
  readonly gateway: RealGateway;
  readonly cIcap: CIcap;
}

export interface StackOptions {
  readonly synapse?: SynapseOptions;
  /** More sections of the gateway's configuration. */
  readonly gateway?: Readonly<Record<string, object>>;
}

export async function startStack(options: StackOptions = {}): Promise<Stack> {
  await using stack = new AsyncDisposableStack();
  const scanner = async () => {
    const clamd = stack.use(await startClamd());
    return stack.use(await startCIcap({ clamd }));
  };
  const [synapse, cIcap, redis] = await Promise.all([startSynapse(options.synapse), scanner(), startRedis()]);
  stack.use(synapse);
  stack.use(redis);
  const relay = stack.use(await Relay.start(synapse.port));
  const gateway = stack.use(
    await startGateway({
      icap: [{ name: "antivirus", urls: [cIcap.url()], canary: ["plain", "zip", "pdf", "expand", "encrypted"] }],
      result_cache: { redis: { url: redis.url } },
      ...options.gateway,
      download: { base_homeserver_url: relay.url, ...options.gateway?.["download"] },
    }),
  );
  await vi.waitFor(async () => expect((await gateway.readiness()).problems).toEqual([]), { timeout: 30_000, interval: 50 });
  const parts = stack.move();
  return { synapse, relay, gateway, cIcap, [Symbol.asyncDispose]: () => parts.disposeAsync() };
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Buffer;
  /** The body, where it is JSON. */
  readonly json: unknown;
}

export interface AskOptions {
  readonly token?: string | undefined;
  /** Sent as JSON, by POST. */
  readonly body?: object;
  readonly headers?: Readonly<Record<string, string>>;
}

export async function ask(url: string, { token, body, headers }: AskOptions = {}): Promise<Answer> {
  const response = await fetch(url, {
    headers: { ...headers, ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) },
    ...(body === undefined ? {} : { method: "POST", body: JSON.stringify(body) }),
  });
  const bytes = Buffer.from(await response.arrayBuffer());
  const isJson = response.headers.get("content-type")?.startsWith("application/json") === true;
  return { status: response.status, headers: response.headers, body: bytes, json: isJson ? JSON.parse(bytes.toString()) : undefined };
}
