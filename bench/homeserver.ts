/**
 * The homeserver of the benchmark, a process of its own: answers any request for media (`media.ts`) from bytes that lie ready, and knows nothing else of HTTP
 * than where a request ends, so that it is not what is measured. Says its port to its parent, and what it has been asked when it is told `counts`.
 * `node bench/homeserver.ts [PORT]`
 */
import { once } from "node:events";
import { type AddressInfo, type Socket, createServer } from "node:net";
import { bodyOf, sizeOf, tailOf } from "./media.ts";

/** What it has been asked for so far. */
export interface HomeserverCounts {
  readonly requests: number;
  readonly connections: number;
}

const HEAD_END = "\r\n\r\n";
const MAX_HEAD = 64 * 1024;
/** Bytes up to which an answer is put together for one write. */
const ONE_WRITE = 64 * 1024;
const REQUEST_LINE = /^GET \/_matrix\/(?:client\/v1\/media|media\/(?:v3|r0|v1))\/(?:download|thumbnail)\/[^/? ]+\/([\w-]+)[/? ]/;
const NOT_FOUND = '{"errcode":"M_NOT_FOUND","error":"no such media"}';

let requests = 0;
let connections = 0;

if (process.argv[1] === import.meta.filename) {
  const server = createServer({ noDelay: true }, serve).listen({ port: Number(process.argv[2] ?? 0), host: "127.0.0.1", backlog: 4096 });
  await once(server, "listening");
  process.send?.((server.address() as AddressInfo).port);
  process.on("message", () => process.send?.({ requests, connections } satisfies HomeserverCounts));
  process.once("disconnect", () => process.exit());
}

function serve(socket: Socket): void {
  let head = "";
  connections += 1;
  socket.on("error", () => socket.destroy());
  socket.on("data", (bytes: Buffer) => {
    head += bytes.toString("latin1");
    if (head.length > MAX_HEAD) socket.destroy();
    if (!head.endsWith(HEAD_END)) return;
    const request = head;
    head = "";
    requests += 1;
    void answer(socket, request);
  });
}

async function answer(socket: Socket, request: string): Promise<void> {
  const last = /\r\nconnection: *close\r\n/i.test(request);
  const id = REQUEST_LINE.exec(request)?.[1] ?? "";
  const size = sizeOf(id);
  if (size === undefined) socket.write(`${headOf(404, "application/json", NOT_FOUND.length, last)}${NOT_FOUND}`);
  else await sendMedia(socket, headOf(200, "application/octet-stream", size, last), size, id);
  if (last) socket.end();
}

function headOf(status: number, type: string, size: number, last: boolean): string {
  const connection = last ? "Connection: close\r\n" : "";
  return `HTTP/1.1 ${status} ${status === 200 ? "OK" : "Not Found"}\r\nContent-Type: ${type}\r\nContent-Length: ${size}\r\n${connection}\r\n`;
}

async function sendMedia(socket: Socket, head: string, size: number, id: string): Promise<void> {
  const start = Buffer.from(head, "latin1");
  if (size <= ONE_WRITE) return void socket.write(Buffer.concat([start, ...bodyOf(size), tailOf(id)]));
  socket.cork();
  socket.write(start);
  for (const part of bodyOf(size)) {
    const room = socket.write(part);
    // The head and the first part leave together.
    socket.uncork();
    if (!room && socket.writable) await roomIn(socket);
    if (!socket.writable) return;
  }
  socket.write(tailOf(id));
}

/** Also when the peer has gone. */
async function roomIn(socket: Socket): Promise<void> {
  const gone = new AbortController();
  const leave = (): void => gone.abort();
  socket.once("close", leave);
  await once(socket, "drain", { signal: gone.signal }).catch(() => undefined);
  socket.off("close", leave);
}
