/** A process that sends bodies to an ICAP server for a while, and tells how many: `raw` writes what was prepared beforehand, `ours` is the ICAP client. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { type Socket, connect } from "node:net";
import { IcapService } from "../icap/index.ts";

export interface Load {
  readonly client: "raw" | "ours";
  readonly url: string;
  /** Bytes of a body. */
  readonly size: number;
  readonly connections: number;
  /** Milliseconds of the same that don't count, for client and server to be at their best. */
  readonly warmUp: number;
  /** Milliseconds. */
  readonly duration: number;
}

export interface LoadResult {
  readonly requests: number;
  /** Milliseconds. */
  readonly elapsed: number;
  /** Milliseconds of CPU time that the client's process took. */
  readonly cpu: number;
}

const PIECE = 64 * 1024;
/** So that no two bodies of a process are the same. */
let counter = 0;

if (process.argv[1] === import.meta.filename) {
  const result = await run(JSON.parse(process.argv[2] ?? "{}") as Load);
  process.send?.(result, () => process.exit());
  process.once("disconnect", () => process.exit());
}

async function run(load: Load): Promise<LoadResult> {
  const send = load.client === "ours" ? ourSenders(load) : await rawSenders(load);
  await repeat(send, load.warmUp);
  const started = performance.now();
  const { user, system } = process.cpuUsage();
  const requests = await repeat(send, load.duration);
  const elapsed = performance.now() - started;
  const cpu = process.cpuUsage({ user, system });
  return { requests, elapsed, cpu: (cpu.user + cpu.system) / 1000 };
}

/** Each again and again for so many milliseconds, but once at least. Resolves to how often in all. */
async function repeat(send: readonly (() => Promise<void>)[], duration: number): Promise<number> {
  const started = performance.now();
  let times = 0;
  await Promise.all(
    send.map(async (one) => {
      do {
        await one();
        times += 1;
      } while (performance.now() - started < duration);
    }),
  );
  return times;
}

/** One for each connection; each call is one request and its answer. Bodies differ, or clamd would know them again. */
function ourSenders({ url, size, connections }: Load): (() => Promise<void>)[] {
  const service = new IcapService({ url, maxConnections: connections, reservedConnections: 0 });
  return Array.from({ length: connections }, () => {
    const body = randomBytes(size);
    return async () => {
      vary(body);
      const { verdict } = await service.scan({
        body: () => piecesOf(body),
        size,
        contentType: "application/octet-stream",
        fileName: "media",
        signal: new AbortController().signal,
      });
      if (verdict.outcome !== "clean") throw new Error(JSON.stringify(verdict));
    };
  });
}

async function* piecesOf(body: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < body.length; at += PIECE) yield body.subarray(at, at + PIECE);
}

/** Everything is written down beforehand: heads, chunk sizes and bytes. */
async function rawSenders({ url, size, connections }: Load): Promise<(() => Promise<void>)[]> {
  return Promise.all(
    Array.from({ length: connections }, async () => {
      let socket = await connected(url);
      const { message, body } = prepared(url, size);
      return async () => {
        vary(body);
        // The server may have closed it meanwhile.
        if (socket.readableEnded || socket.destroyed) socket = await connected(url);
        const answer = answered(socket);
        for (const piece of message) if (!socket.write(piece)) await once(socket, "drain");
        if ((await answer) === "closes") socket.destroy();
      };
    }),
  );
}

async function connected(url: string): Promise<Socket> {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port), noDelay: true });
  await once(socket, "connect");
  return socket;
}

function answered(socket: Socket): Promise<"closes" | "stays"> {
  return new Promise((resolve, reject) => {
    let text = "";
    const gone = (): void => reject(new Error(`the server closed the connection: ${text.slice(0, 200)}`));
    const listen = (bytes: Buffer): void => {
      text += bytes.toString("latin1");
      if (!text.endsWith("\r\n\r\n")) return;
      socket.off("data", listen).off("close", gone);
      if (text.startsWith("ICAP/1.0 204")) resolve(/^connection: close/im.test(text) ? "closes" : "stays");
      else reject(new Error(text.slice(0, 200)));
    };
    socket.on("data", listen).once("close", gone);
  });
}

function prepared(url: string, size: number): { message: Buffer[]; body: Buffer } {
  const request = "GET http://media.invalid/media HTTP/1.1\r\nHost: media.invalid\r\n\r\n";
  const response = `HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: ${size}\r\n\r\n`;
  const offsets = `req-hdr=0, res-hdr=${request.length}, res-body=${request.length + response.length}`;
  const head = `RESPMOD ${url} ICAP/1.0\r\nHost: ${new URL(url).host}\r\nAllow: 204\r\nEncapsulated: ${offsets}\r\n\r\n`;
  const body = randomBytes(size);
  const pieces = Array.from({ length: Math.ceil(size / PIECE) }, (_, index) => body.subarray(index * PIECE, (index + 1) * PIECE));
  const framed = pieces.flatMap((piece, index) => [Buffer.from(`${index === 0 ? "" : "\r\n"}${piece.length.toString(16)}\r\n`), piece]);
  const message = [Buffer.from(head + request + response), ...framed, Buffer.from("\r\n0\r\n\r\n")];
  // One write for what is small: nothing could be cheaper.
  if (size > PIECE * 4) return { message, body };
  const whole = Buffer.concat(message);
  const at = whole.indexOf(pieces[0]?.subarray(0, 64) ?? "");
  return { message: [whole], body: whole.subarray(at, at + 16) };
}

function vary(body: Buffer): void {
  counter += 1;
  body.writeUInt32LE(counter, 0);
}
