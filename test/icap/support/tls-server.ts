import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { type TLSSocket, type TlsOptions, createServer } from "node:tls";
import { certificates } from "./certificates.ts";
import { CLEAN, OPTIONS } from "./scripted-server.ts";

interface Greeting {
  /** What the client asked for by SNI. */
  readonly name: string | false | null;
  /** The common name of the client's certificate. */
  readonly client: string | undefined;
  readonly resumed: boolean;
  readonly protocol: string | null;
}

/** Answers OPTIONS, calls everything clean, and notes who came. */
export async function tlsServer(options: TlsOptions = {}, { host = "127.0.0.1", port: at = 0, answer = (): string => CLEAN } = {}) {
  const greetings: Greeting[] = [];
  const requests: string[] = [];
  const sockets = new Set<TLSSocket>();
  const count = { open: 0, failed: 0 };
  const server = createServer({ ...certificates.server, ...options });
  server.on("connection", (socket) => {
    count.open++;
    socket.once("close", () => count.open--);
  });
  server.on("tlsClientError", () => count.failed++);
  server.on("secureConnection", (socket) => {
    sockets.add(socket);
    const client = socket.getPeerCertificate().subject?.CN;
    greetings.push({
      name: socket.servername,
      client: typeof client === "string" ? client : undefined,
      resumed: socket.isSessionReused(),
      protocol: socket.getProtocol(),
    });
    socket.on("error", () => socket.destroy());
    socket.once("close", () => sockets.delete(socket));
    let received = "";
    socket.setEncoding("latin1").on("data", (text: unknown) => {
      received += String(text);
      const isOptions = received.startsWith("OPTIONS");
      if (!received.endsWith(isOptions ? "\r\n\r\n" : "\r\n0\r\n\r\n")) return;
      requests.push(received);
      received = "";
      socket.write(isOptions ? OPTIONS : answer());
    });
  });
  server.listen(at, host);
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    port,
    url: `icaps://127.0.0.1:${port}/scan`,
    greetings,
    requests,
    count,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => {
        server.close(resolve);
      });
    },
  };
}
