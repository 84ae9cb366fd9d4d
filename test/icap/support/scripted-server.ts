import { once } from "node:events";
import { type AddressInfo, type Socket, createServer } from "node:net";
import { type TlsOptions, createServer as createTlsServer } from "node:tls";

export const OPTIONS =
  'ICAP/1.0 200 OK\r\nMethods: RESPMOD\r\nISTag: "tag-1"\r\nAllow: 204\r\nOptions-TTL: 3600\r\nEncapsulated: null-body=0\r\n\r\n';
export const CLEAN = "ICAP/1.0 204 OK\r\n\r\n";
export const ECHO_HEAD = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";

/** A 200 with these chunks as its body, after `head`. */
export function withBody(chunks: string, head = ECHO_HEAD, fields = ""): string {
  return `ICAP/1.0 200 OK\r\n${fields}Encapsulated: res-hdr=0, res-body=${head.length}\r\n\r\n${head}${chunks}`;
}

export interface Peer {
  readonly socket: Socket;
  /** Number of this request, from 1, over all connections. */
  readonly request: number;
  /** All that has come of it. */
  readonly received: () => string;
}

export interface Script {
  /** The answer to OPTIONS; null for none. */
  readonly options?: string | null | (() => string);
  /** OPTIONS was asked with this head. */
  readonly optionsHead?: (head: string, socket: Socket) => void;
  /** A RESPMOD or REQMOD request begins to arrive. */
  readonly begin?: (peer: Peer) => void;
  /** Its last chunk, or its preview's, is there; may happen twice in a request with a preview. */
  readonly complete?: (peer: Peer) => void;
}

/**
 * A server by sockets, plain ones unless `tls` is given, that says what it is told, when it is told, right or wrong. Bodies must not hold
 * `\r\n0\r\n\r\n`.
 */
export async function scriptedServer(script: Script, tls?: TlsOptions) {
  const sockets = new Set<Socket>();
  const count = { connections: 0, open: 0, peak: 0, requests: 0, options: 0 };
  const serve = (socket: Socket): void => {
    sockets.add(socket);
    count.connections++;
    count.open++;
    count.peak = Math.max(count.peak, count.open);
    socket.on("error", () => socket.destroy());
    socket.once("close", () => {
      sockets.delete(socket);
      count.open--;
    });
    let received = "";
    let peer: Peer | undefined;
    socket.setEncoding("latin1").on("data", (text: unknown) => {
      received += String(text);
      for (;;) {
        if (received.startsWith("OPTIONS") && received.includes("\r\n\r\n")) {
          const end = received.indexOf("\r\n\r\n") + 4;
          script.optionsHead?.(received.slice(0, end), socket);
          received = received.slice(end);
          count.options++;
          const { options = OPTIONS } = script;
          if (options !== null) socket.write(typeof options === "string" ? options : options());
          continue;
        }
        if (received === "") return;
        if (peer === undefined) {
          count.requests++;
          peer = { socket, request: count.requests, received: () => received };
          script.begin?.(peer);
        }
        if (!/\r\n0(; ieof)?\r\n\r\n$/.test(received)) return;
        const before = socket.bytesWritten;
        const all = received;
        script.complete?.({ ...peer, received: () => all });
        // After 100 Continue the same request goes on.
        const goesOn = socket.bytesWritten === before + CONTINUE.length;
        received = "";
        if (!goesOn) peer = undefined;
      }
    });
  };
  const server = tls === undefined ? createServer({ noDelay: true }, serve) : createTlsServer(tls, serve);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    url: `${tls === undefined ? "icap" : "icaps"}://127.0.0.1:${port}/scan`,
    count,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => {
        server.close(resolve);
      });
    },
  };
}

export const CONTINUE = "ICAP/1.0 100 Continue\r\n\r\n";
