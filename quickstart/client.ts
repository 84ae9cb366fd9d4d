/** The content-scanner API as a Matrix client speaks it. */
import { createRequire } from "node:module";
import type Olm from "@matrix-org/olm";
import { Agent, request } from "undici";
import type { EncryptedFile } from "./encrypted-attachment.ts";

export const BASE_PATH = "/_matrix/media_proxy/unstable";

export interface Answer {
  readonly status: number;
  readonly body: Buffer;
  /** The body, where it is JSON. */
  readonly json: Readonly<Record<string, unknown>> | undefined;
  /** From the request's first byte to the answer's last. */
  readonly milliseconds: number;
}

export class ScannerClient implements AsyncDisposable {
  readonly #base: string;
  readonly #agent = new Agent();
  readonly #signal: AbortSignal;

  /** @param gateway its URL, without a path */
  constructor(gateway: string, signal: AbortSignal) {
    this.#base = gateway + BASE_PATH;
    this.#signal = signal;
  }

  get(path: string, token?: string): Promise<Answer> {
    return this.#send("GET", path, token);
  }

  /** With the file's key in the clear, as some clients send it: only TLS protects it. */
  post(path: string, file: EncryptedFile, token: string): Promise<Answer> {
    return this.#send("POST", path, token, { file });
  }

  /** With the file's key encrypted to the gateway, so that no proxy in between sees it. */
  async postSealed(path: string, file: EncryptedFile, token: string): Promise<Answer> {
    const { json } = await this.get("/public_key");
    return this.#send("POST", path, token, { encrypted_body: await seal({ file }, String(json?.["public_key"])) });
  }

  async #send(method: "GET" | "POST", path: string, token?: string, body?: object): Promise<Answer> {
    const started = performance.now();
    const response = await request(this.#base + path, {
      method,
      dispatcher: this.#agent,
      signal: this.#signal,
      headers: {
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      body: body === undefined ? null : JSON.stringify(body),
    });
    const bytes = Buffer.from(await response.body.arrayBuffer());
    const isJson = String(response.headers["content-type"]).startsWith("application/json");
    return {
      status: response.statusCode,
      body: bytes,
      json: isJson ? (JSON.parse(bytes.toString()) as Record<string, unknown>) : undefined,
      milliseconds: performance.now() - started,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }
}

/** Olm's PkEncryption: `{ciphertext, mac, ephemeral}`. */
async function seal(content: object, publicKey: string): Promise<object> {
  const olm = createRequire(import.meta.url)("@matrix-org/olm") as typeof Olm;
  await olm.init();
  const encryption = new olm.PkEncryption();
  try {
    encryption.set_recipient_key(publicKey);
    const { ciphertext, mac, ephemeral } = encryption.encrypt(JSON.stringify(content));
    return { ciphertext, mac, ephemeral };
  } finally {
    encryption.free();
  }
}
