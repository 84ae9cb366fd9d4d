import { once } from "node:events";
import { type AddressInfo, type Server, type Socket, createServer } from "node:net";
import { type IcapLimits, limitsFrom } from "../codec/limits.ts";
import { Session } from "./session.ts";
import type { IcapHandler } from "./types.ts";

export interface IcapServerOptions {
  /** By path, without its first slash. */
  readonly services: Readonly<Record<string, IcapHandler>>;
  /** Milliseconds without a byte in either direction after which a connection is closed; 60000 by default. */
  readonly idleTimeout?: number;
  readonly limits?: Partial<IcapLimits>;
}

/** A small ICAP server (RFC 3507): OPTIONS from a table, REQMOD and RESPMOD by handlers. For demonstrations and tests, on networks that are trusted. */
export class IcapServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #peak = 0;
  #total = 0;

  constructor({ services, idleTimeout = 60_000, limits }: IcapServerOptions) {
    const byPath = new Map(Object.entries(services));
    const checked = limitsFrom(limits);
    this.#server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => {
      this.#add(socket);
      socket.setTimeout(idleTimeout, () => socket.destroy());
      void new Session(socket, byPath, checked).run();
    });
  }

  /** Connections now, at most so far, and in all. */
  get connections(): { readonly open: number; readonly peak: number; readonly total: number } {
    return { open: this.#sockets.size, peak: this.#peak, total: this.#total };
  }

  /** Port 0 takes any that is free. @throws the system's error */
  async listen(port: number, host = "127.0.0.1"): Promise<{ readonly port: number }> {
    this.#server.listen(port, host);
    await once(this.#server, "listening");
    return { port: (this.#server.address() as AddressInfo).port };
  }

  /** Ends all connections. Resolves when the last is closed. Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    const closed = [...this.#sockets].map((socket) => once(socket, "close"));
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => {
      this.#server.close(resolve);
    });
    await Promise.all(closed);
  }

  #add(socket: Socket): void {
    this.#sockets.add(socket);
    this.#total++;
    this.#peak = Math.max(this.#peak, this.#sockets.size);
    // What goes wrong ends the connection, which its session sees.
    socket.on("error", () => socket.destroy());
    socket.once("close", () => this.#sockets.delete(socket));
  }
}
