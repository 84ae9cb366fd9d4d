/** Started as a worker: a server that answers a body's beginning and closes, whatever the client's thread is busy with meanwhile. */
import { type AddressInfo, type Socket, createServer } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { parentPort, workerData } from "node:worker_threads";
import { certificates } from "./certificates.ts";
import { OPTIONS } from "./scripted-server.ts";

export interface HastyServerData {
  readonly tls: boolean;
  /** What it says once the body has begun. */
  readonly answer: string;
  /** By a reset whatever there is, or as the system closes when bytes are left unread. Not by TLS. */
  readonly reset: boolean;
  /** Its first number becomes 1 when a connection that was answered is closed. */
  readonly closed: SharedArrayBuffer;
}

const { tls, answer, reset, closed } = workerData as HastyServerData;

function serve(socket: Socket): void {
  let received = "";
  let done = false;
  socket.on("error", () => socket.destroy());
  socket.on("data", (bytes: Buffer) => {
    if (done) return;
    received += bytes.toString("latin1");
    if (received.startsWith("OPTIONS") && received.endsWith("\r\n\r\n")) {
      received = "";
      socket.write(OPTIONS);
    } else if (received.startsWith("RESPMOD") && received.length > 4096) {
      done = true;
      socket.pause();
      socket.write(answer, () => {
        socket.once("close", () => {
          Atomics.store(new Int32Array(closed), 0, 1);
          Atomics.notify(new Int32Array(closed), 0);
        });
        if (reset) socket.resetAndDestroy();
        else socket.destroy();
      });
    }
  });
}

const server = tls ? createTlsServer(certificates.server, serve) : createServer(serve);
// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread is no window
server.listen(0, "127.0.0.1", () => parentPort?.postMessage((server.address() as AddressInfo).port));
