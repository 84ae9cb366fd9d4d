/** Clients that can't run here: their requests, byte for byte in their form, through nginx and straight to the gateway. */
import { randomBytes } from "node:crypto";
import { globSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { basename, join } from "node:path";
import { connect as connectTls } from "node:tls";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BASE_PATH } from "../../src/http/app.ts";
import { EICAR } from "../../src/scan/canary-samples.ts";
import { encryptFile } from "../support/encrypted-file.ts";
import { type Nginx, startNginx } from "../support/nginx.ts";
import type { SynapseUser } from "../support/synapse.ts";
import { testCertificate } from "../support/tls.ts";
import { png } from "./png.ts";
import { sealByVodozemac } from "./seal.ts";
import { ask, type Stack, startStack } from "./stack.ts";

const FOLDER = join(import.meta.dirname, "../fixtures/clients");
const FILES = globSync("*.http", { cwd: FOLDER }).toSorted();

interface RawAnswer {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: Buffer;
}

interface Sample {
  /** What the client is to get from a download. */
  readonly bytes: Buffer;
  readonly values: Readonly<Record<string, string>>;
}

let stack: Stack;
let nginx: Nginx;
let alice: SynapseUser;

beforeAll(async () => {
  stack = await startStack({ gateway: { web: { trusted_proxies: ["127.0.0.1"] } } });
  nginx = await startNginx({ gateway: stack.gateway.url, synapse: stack.synapse.url });
  alice = await stack.synapse.registerUser("alice");
});
afterAll(async () => {
  await nginx.stop();
  await stack[Symbol.asyncDispose]();
});

describe.each(FILES)("%s", (file) => {
  it.each(["clean", "infected"])("%s", async (kind) => {
    for (const url of [nginx.url, stack.gateway.url]) {
      const { bytes, values } = await sample(file, kind === "clean");
      const request = await render(file, { ...values, host: new URL(url).host });
      const hasToken = /^authorization: /im.test(request.toString("latin1"));
      expectAnswer(file, await exchange(new URL(url), request), { bytes, clean: kind === "clean", hasToken });
    }
  });
});

/** Media in Synapse, of a kind that fits the request. */
async function sample(file: string, clean: boolean): Promise<Sample> {
  const { synapse } = stack;
  if (!/encrypted/.test(file)) {
    // Of what is infected, Synapse makes no thumbnail.
    const bytes = clean || file.includes("thumbnail") ? png(64 + (randomBytes(1)[0] ?? 0)) : EICAR;
    const { path } = await synapse.upload(alice.token, bytes, { contentType: "image/png" });
    const [server = "", media = ""] = path.split("/");
    return { bytes, values: { token: alice.token, server, media, "server-encoded": encodeURIComponent(server) } };
  }
  const { ciphertext, file: attachment } = await encryptFile(clean ? randomBytes(1000) : EICAR);
  const info = attachment((await synapse.upload(alice.token, ciphertext)).path) as unknown as Attachment;
  return {
    bytes: ciphertext,
    values: { token: alice.token, url: info.url, k: info.key.k, iv: info.iv, sha256: info.hashes.sha256 },
  };
}

interface Attachment {
  readonly url: string;
  readonly key: { readonly k: string };
  readonly iv: string;
  readonly hashes: { readonly sha256: string };
}

async function render(file: string, values: Readonly<Record<string, string>>): Promise<Buffer> {
  const text = (await readFile(join(FOLDER, file), "utf8")).replace(/\n$/, "");
  const [first = "", second] = text.split("\n---\n");
  const sealed = second === undefined ? {} : await seal(filled(first, values));
  const [head = "", body = ""] = (second ?? first).split(/\n\n|\n$/);
  const content = filled(body, { ...values, ...sealed });
  const lines = filled(head, { ...values, length: String(Buffer.byteLength(content)) }).split("\n");
  return Buffer.from(`${lines.join("\r\n")}\r\n\r\n${content}`);
}

async function seal(plaintext: string): Promise<Record<string, string>> {
  const { json } = await ask(`${stack.gateway.url}${BASE_PATH}/public_key`);
  return { ...(await sealByVodozemac((json as { public_key: string }).public_key, plaintext)) };
}

function filled(template: string, values: Readonly<Record<string, string>>): string {
  return template.replaceAll(/\{\{([\w-]+)\}\}/g, (_, name: string) => {
    const value = values[name];
    if (value === undefined) throw new Error(`nothing to fill in for ${name}`);
    return value;
  });
}

/** What each kind of request is to come to. Those without a token can't read what Synapse has frozen. */
function expectAnswer(
  file: string,
  answer: RawAnswer,
  { bytes, clean, hasToken }: { readonly bytes: Buffer; readonly clean: boolean; readonly hasToken: boolean },
): void {
  expect(answer.headers.get("access-control-allow-origin")).toBe("*");
  if (file.includes("preflight")) {
    expect(answer.status).toBe(200);
    expect(answer.headers.get("access-control-allow-headers")?.toLowerCase()).toMatch(/content-type.*authorization/);
    return;
  }
  const json = (): unknown => JSON.parse(answer.body.toString());
  if (file.includes("public-key")) {
    expect([answer.status, json()]).toEqual([200, { public_key: expect.stringMatching(/^[\w+/]{43}$/) as string }]);
  } else if (!hasToken) {
    expect([answer.status, json()]).toEqual([404, { reason: "M_NOT_FOUND", info: "The media was not found" }]);
  } else if (file.includes("-scan")) {
    expect([answer.status, json()]).toEqual([200, { clean, info: clean ? "File is clean" : "***VIRUS DETECTED***" }]);
  } else if (file.includes("thumbnail")) {
    expect([answer.status, answer.headers.get("content-type"), png(1).compare(answer.body, 0, 8, 0, 8)]).toEqual([200, "image/png", 0]);
  } else if (clean) {
    expect([answer.status, answer.body.equals(bytes)]).toEqual([200, true]);
    const type = file.includes("encrypted") ? "application/octet-stream" : "image/png";
    expect(answer.headers.get("content-type"), basename(file)).toBe(type);
  } else {
    expect([answer.status, json()]).toEqual([403, { reason: "MCS_MEDIA_NOT_CLEAN", info: "***VIRUS DETECTED***" }]);
  }
}

/** Sends these very bytes and reads one answer. */
async function exchange(url: URL, request: Buffer): Promise<RawAnswer> {
  const at = { host: url.hostname, port: Number(url.port) };
  const socket: Socket = url.protocol === "https:" ? connectTls({ ...at, ca: testCertificate.cert }) : connect(at);
  socket.setTimeout(30_000, () => socket.destroy(new Error("no answer")));
  socket.write(request);
  let received = Buffer.alloc(0);
  try {
    for await (const bytes of socket as AsyncIterable<Buffer>) {
      received = Buffer.concat([received, bytes]);
      const answer = parsed(received);
      if (answer !== undefined) return answer;
    }
  } finally {
    socket.destroy();
  }
  throw new Error(`the answer ends early: ${received.toString("latin1").slice(0, 500)}`);
}

function parsed(received: Buffer): RawAnswer | undefined {
  const end = received.indexOf("\r\n\r\n");
  if (end < 0) return undefined;
  const [status = "", ...lines] = received.toString("latin1", 0, end).split("\r\n");
  const headers = new Map(lines.map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]));
  const body = received.subarray(end + 4);
  const answer = { status: Number(status.split(" ")[1]), headers };
  const length = headers.get("content-length");
  // Only what has no body at all may come without a length: clients show progress, and notice a cut, by it.
  if (length === undefined) return body.toString("latin1") === "0\r\n\r\n" ? { ...answer, body: Buffer.alloc(0) } : undefined;
  return body.length < Number(length) ? undefined : { ...answer, body };
}
