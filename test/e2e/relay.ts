import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/** Passes TCP on to a port of this machine, and can hold what comes back from there, so that a test may do something in the middle of it. */
export class Relay implements AsyncDisposable {
  readonly #server: Server;
  readonly #upstreams = new Set<Socket>();
  #allowance = Infinity;
  #held = Promise.withResolvers<void>();

  private constructor(port: number) {
    this.#server = createServer((client) => this.#pass(client, connect(port, "127.0.0.1")));
  }

  static async start(port: number): Promise<Relay> {
    const relay = new Relay(port);
    relay.#server.listen(0, "127.0.0.1");
    await once(relay.#server, "listening");
    return relay;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Lets so many bytes of answers through, then none. @returns a promise that resolves when more has come */
  holdAfter(bytes: number): { readonly held: Promise<void> } {
    this.#allowance = bytes;
    this.#held = Promise.withResolvers<void>();
    return { held: this.#held.promise };
  }

  /** Passes on what is held, and all that follows. */
  release(): void {
    this.#allowance = Infinity;
    for (const upstream of this.#upstreams) upstream.resume();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    for (const upstream of this.#upstreams) upstream.destroy();
    await closed;
  }

  #pass(client: Socket, upstream: Socket): void {
    this.#upstreams.add(upstream);
    client.pipe(upstream);
    upstream.on("data", (bytes: Buffer) => {
      this.#allowance -= bytes.length;
      if (!client.write(bytes)) upstream.pause();
      if (this.#allowance > 0) return;
      upstream.pause();
      this.#held.resolve();
    });
    client.on("drain", () => {
      if (this.#allowance > 0) upstream.resume();
    });
    client.on("error", () => undefined);
    client.on("close", () => upstream.destroy());
    upstream.on("error", () => client.destroy());
    upstream.on("end", () => client.end());
    upstream.on("close", () => {
      this.#upstreams.delete(upstream);
      client.destroySoon();
    });
  }
}
