/** A listener: starts, and ends without cutting off whoever is still being answered. */
import { type IncomingMessage, type ServerResponse, createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { type HttpBindings, getRequestListener, RequestError } from "@hono/node-server";
import { GatewayError } from "../errors.ts";
import { lingerAfter } from "./client-body.ts";
import { COMMON_HEADERS } from "./common-headers.ts";

export interface ListenOptions {
  readonly host: string;
  readonly port: number;
  /** At once; `MAX_CONNECTIONS` by default. */
  readonly maxConnections?: number;
}

export interface Listener {
  readonly address: { readonly host: string; readonly port: number };
  /** Takes no new connection; resolves when the last answer is out, or was cut off because the signal aborted. */
  close(signal: AbortSignal): Promise<void>;
}

/** Milliseconds; a client that sends its request's head slower than this has lost its place. Whoever reads a body has a limit of its own for that. */
const HEADERS_TIMEOUT = 20_000;
/** Longer than reverse proxies keep idle connections, so that it is they who close them. */
const KEEP_ALIVE_TIMEOUT = 75_000;
const MAX_HEADER_SIZE = 16 * 1024;
/** At once. */
export const MAX_CONNECTIONS = 10_000;
/** Milliseconds between two looks for idle connections while the listener ends. */
const SWEEP_INTERVAL = 50;

/** What a listener hands its requests to. */
export interface Application {
  fetch(request: Request, bindings: HttpBindings): Response | Promise<Response>;
  /** Hears of requests that never became one: what came is hardly HTTP, and was answered with this. */
  refused?(failure: GatewayError): void;
}

/** @throws the system's error when the address can't be had. */
export async function listen(app: Application, options: ListenOptions): Promise<Listener> {
  // The server below is HTTP/1.1's, so the bindings are, too.
  const handler = getRequestListener((request, bindings) => app.fetch(request, bindings as HttpBindings), {
    overrideGlobalObjects: false,
    autoCleanupIncoming: false,
    // Of HTTP/1.0 requests, such as load balancers' probes, that name none.
    hostname: "localhost",
    // Called when no request can be made of what came: a Host that is none, say. What handlers throw, the application answers by itself.
    errorHandler: (error) => {
      const failure = new GatewayError(error instanceof RequestError ? "bad_request" : "internal", { cause: error });
      app.refused?.(failure);
      return Response.json(failure.body("scanner"), { status: failure.status, headers: COMMON_HEADERS });
    },
  });
  const answer = (incoming: IncomingMessage, outgoing: ServerResponse): void => {
    lingerAfter({ incoming, outgoing });
    void handler(incoming, outgoing);
  };
  const server = createServer(
    {
      headersTimeout: HEADERS_TIMEOUT,
      requestTimeout: 0,
      keepAliveTimeout: KEEP_ALIVE_TIMEOUT,
      maxHeaderSize: MAX_HEADER_SIZE,
      noDelay: true,
      // A request that announces no body is at its end when it comes: nobody has to wait for that, or to see to it.
      optimizeEmptyRequests: true,
    },
    answer,
  );
  // Nobody is told to go on before somebody wants the body.
  server.on("checkContinue", answer);
  server.maxConnections = options.maxConnections ?? MAX_CONNECTIONS;
  await started(server, options);
  const { address, port } = server.address() as AddressInfo;
  return { address: { host: address, port }, close: (signal) => closed(server, signal) };
}

async function started(server: Server, { host, port }: ListenOptions): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

async function closed(server: Server, signal: AbortSignal): Promise<void> {
  const cutOff = (): void => server.closeAllConnections();
  // A connection that was kept alive becomes idle only with its last answer, and nobody tells of that.
  const sweep = setInterval(() => server.closeIdleConnections(), SWEEP_INTERVAL);
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
    if (signal.aborted) cutOff();
    else signal.addEventListener("abort", cutOff, { once: true });
  });
  clearInterval(sweep);
  signal.removeEventListener("abort", cutOff);
}
