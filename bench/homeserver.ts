/**
 * The homeserver of the benchmark, a process of its own: answers any request for media (`media.ts`) from bytes that lie ready, takes uploads, and knows nothing else of
 * HTTP than where a request ends, so that it is not what is measured. Says its port to its parent, and what it has been asked when it is told `counts`.
 * `node bench/homeserver.ts [PORT]`
 */
import { once } from "node:events";
import { type AddressInfo, type Socket, createServer } from "node:net";
import { SERVER_NAME, TAIL_SIZE, UPLOAD_PATH, bodyOf, idOf, sizeOf, tailOf } from "./media.ts";

/** What it has been asked for so far. */
export interface HomeserverCounts {
  readonly requests: number;
  readonly connections: number;
}

const HEAD_END = "\r\n\r\n";
const MAX_HEAD = 64 * 1024;
const MAX_UPLOAD = 1024 * 1024 * 1024;
const EMPTY = Buffer.alloc(0);
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
  /** Of the body of the request in `head`, while it comes. */
  let left = 0;
  let end: Buffer = EMPTY;
  connections += 1;
  const done = (): void => {
    const request = head;
    const tail = end;
    [head, left, end] = ["", 0, EMPTY];
    requests += 1;
    void answer(socket, request, tail);
  };
  const take = (bytes: Buffer): void => {
    left -= bytes.length;
    end = bytes.length >= TAIL_SIZE ? Buffer.from(bytes.subarray(-TAIL_SIZE)) : Buffer.concat([end, bytes]).subarray(-TAIL_SIZE);
    if (left === 0) done();
  };
  socket.on("error", () => socket.destroy());
  socket.on("data", (bytes: Buffer) => {
    if (left > 0) return take(bytes);
    const before = head.length;
    head += bytes.toString("latin1");
    const headEnd = head.indexOf(HEAD_END);
    if (headEnd === -1) return void (head.length > MAX_HEAD && socket.destroy());
    const after = headEnd + HEAD_END.length;
    const body = bytes.subarray(after - before);
    head = head.slice(0, after);
    left = Number(/\r\ncontent-length: *(\d+)\r\n/i.exec(head)?.[1] ?? 0);
    if (left === 0) done();
    else if (body.length > 0) take(body);
  });
}

async function answer(socket: Socket, request: string, tail: Buffer): Promise<void> {
  const last = /\r\nconnection: *close\r\n/i.test(request);
  const json = jsonFor(request, tail);
  const id = REQUEST_LINE.exec(request)?.[1] ?? "";
  const size = sizeOf(id);
  if (json !== undefined) socket.write(`${headOf(200, "application/json", json.length, last)}${json}`);
  else if (size === undefined) socket.write(`${headOf(404, "application/json", NOT_FOUND.length, last)}${NOT_FOUND}`);
  else await sendMedia(socket, headOf(200, "application/octet-stream", size, last), size, id);
  if (last) socket.end();
}

/** For uploads: the URI, which tells that the end has come; whose token it is; and how large they may be. */
function jsonFor(request: string, tail: Buffer): string | undefined {
  if (request.startsWith(`POST ${UPLOAD_PATH}`)) return JSON.stringify({ content_uri: `mxc://${SERVER_NAME}/${idOf(tail)}` });
  if (request.startsWith("GET /_matrix/client/v1/media/config ")) return JSON.stringify({ "m.upload.size": MAX_UPLOAD });
  if (!request.startsWith("GET /_matrix/client/v3/account/whoami ")) return undefined;
  return JSON.stringify({ user_id: `@${/\r\nauthorization: Bearer ([\w-]+)\r\n/i.exec(request)?.[1] ?? "nobody"}:${SERVER_NAME}` });
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
