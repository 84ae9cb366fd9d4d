/** The gateway as it is installed, in a process of its own that can be killed. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { request } from "undici";
import { BASE_PATH } from "../../src/http/app.ts";

const BIN = fileURLToPath(new URL("../../bin/matrix-icap-gateway.mjs", import.meta.url));

/** Clients wait for as long as their test does. */
const PATIENT = { headersTimeout: 0, bodyTimeout: 0 };

type Line = Readonly<Record<string, unknown>>;

interface Listening {
  readonly address: { readonly port: number };
  readonly adminAddress: { readonly port: number };
}

/** Those that run: they end with the test process. */
const running = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

export class GatewayProcess implements AsyncDisposable {
  /** What it has logged, in order. */
  readonly log: readonly Line[];
  readonly port: number;
  readonly #child: ChildProcess;
  readonly #ended: Promise<number | null>;
  readonly #url: string;
  readonly #adminUrl: string;

  private constructor(child: ChildProcess, ended: Promise<number | null>, log: readonly Line[], { address, adminAddress }: Listening) {
    this.#child = child;
    this.#ended = ended;
    this.log = log;
    this.port = address.port;
    this.#url = `http://127.0.0.1:${address.port}${BASE_PATH}`;
    this.#adminUrl = `http://127.0.0.1:${adminAddress.port}`;
  }

  /**
   * Resolves when it listens.
   * @param home a directory where it keeps its compiled code
   * @throws Error with its log when it ends instead
   */
  static async start(file: string, home: string): Promise<GatewayProcess> {
    const child = spawn(process.execPath, [BIN, "-c", file], { env: environment(home), stdio: ["ignore", "pipe", "inherit"] });
    running.add(child);
    const ended = once(child, "exit").then(([code]: (number | null)[]) => {
      running.delete(child);
      return code ?? null;
    });
    const log: Line[] = [];
    const listening = new Promise<Listening>((resolve, reject) => {
      const lines = createInterface(child.stdout);
      lines.on("line", (text) => {
        const line = JSON.parse(text) as Line;
        log.push(line);
        if (line["msg"] === "listening") resolve(line as unknown as Listening);
      });
      lines.on("close", () => reject(new Error(`the gateway has ended: ${JSON.stringify(log)}`)));
    });
    return new GatewayProcess(child, ended, log, await listening);
  }

  /**
   * What a client gets who asks for media: `delivered` when these are the bytes, to the last one; `blocked`; or what else happened, in words. Nothing
   * is kept of the answer.
   */
  async download(mxc: string, token: string, bytes: Uint8Array): Promise<string> {
    try {
      const { statusCode, body } = await request(`${this.#url}/download/${mxc}`, {
        headers: { authorization: `Bearer ${token}` },
        ...PATIENT,
      });
      if (statusCode !== 200) return refusal(statusCode, await body.text());
      let size = 0;
      let same = true;
      for await (const chunk of body as AsyncIterable<Buffer>) {
        same &&= Buffer.from(bytes.buffer, bytes.byteOffset + size, Math.min(chunk.length, bytes.length - size)).equals(chunk);
        size += chunk.length;
      }
      return same && size === bytes.length ? "delivered" : `other bytes, ${size} of ${bytes.length}`;
    } catch (error) {
      return `no answer: ${String(error)}`;
    }
  }

  async get(path: string, token: string): Promise<Response> {
    return fetch(`${this.#url}/${path}`, { headers: { authorization: `Bearer ${token}` } });
  }

  async post(path: string, body: unknown, token: string): Promise<Response> {
    return fetch(`${this.#url}/${path}`, { method: "POST", body: JSON.stringify(body), headers: { authorization: `Bearer ${token}` } });
  }

  /** Of the admin listener: `ready`, `degraded` or `not ready`, and why. */
  async readiness(): Promise<{ readonly status: string; readonly problems: readonly string[] }> {
    const response = await fetch(`${this.#adminUrl}/health/ready`);
    return (await response.json()) as { status: string; problems: string[] };
  }

  /** In the text exposition format. */
  async metrics(): Promise<string> {
    return (await fetch(`${this.#adminUrl}/metrics`)).text();
  }

  /** By number, those that serve: the last process of each. */
  workers(): ReadonlyMap<number, number> {
    const serving = this.log.filter(({ msg }) => msg === "a worker serves");
    return new Map(serving.map(({ worker, pid }) => [Number(worker), Number(pid)]));
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** Resolves with its exit status when it has ended by itself. */
  get ended(): Promise<number | null> {
    return this.#ended;
  }

  /** At once; resolves when it is gone. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#ended;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill();
  }
}

/** `matrix-icap-gateway …` with its standard output. @throws Error when its exit status is not 0 */
export async function runCommand(home: string, ...args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, [BIN, ...args], { env: environment(home) });
  return stdout;
}

function environment(home: string): NodeJS.ProcessEnv {
  return { HOME: home, PATH: process.env["PATH"] };
}

function refusal(status: number, text: string): string {
  return status === 403 && text.includes('"MCS_MEDIA_NOT_CLEAN"') ? "blocked" : `${status} ${text}`;
}
