import { once } from "node:events";
import type { Socket } from "node:net";
import type { RequestLine } from "../codec/head.ts";
import type { IcapLimits } from "../codec/limits.ts";
import { MalformedMessage } from "../codec/malformed.ts";
import type { MessageHead } from "../codec/parser.ts";
import { CONTINUE, optionsReply, refusal, replyBody, replyHeads } from "./reply.ts";
import { RequestReader } from "./request-reader.ts";
import type { IcapHandler, IcapReply, IcapRequest } from "./types.ts";

const REQUEST_URI = /^icaps?:\/\/[^/?#]+\/([^?#]*)(?:\?([^#]*))?$/i;

/** One client's connection: its requests, one after the other (RFC 3507 section 4). */
export class Session {
  readonly #socket: Socket;
  readonly #services: ReadonlyMap<string, IcapHandler>;
  readonly #reader: RequestReader;
  readonly #gone = new AbortController();

  constructor(socket: Socket, services: ReadonlyMap<string, IcapHandler>, limits: IcapLimits) {
    this.#socket = socket;
    this.#services = services;
    this.#reader = new RequestReader(socket[Symbol.asyncIterator](), limits, () => socket.write(CONTINUE));
    socket.once("close", () => this.#gone.abort(new Error("the client is gone")));
  }

  /** Serves until either side ends the connection. Never rejects. */
  async run(): Promise<void> {
    try {
      while (await this.#serveOne());
    } catch (error) {
      if (error instanceof MalformedMessage) this.#socket.write(refusal(400));
      else this.#socket.destroy();
    }
    this.#socket.destroySoon();
  }

  async #serveOne(): Promise<boolean> {
    const head = await this.#reader.next();
    if (head === undefined) return false;
    const [service = "", query = ""] = REQUEST_URI.exec(head.start.uri)?.slice(1) ?? [];
    const handler = this.#services.get(service);
    if (handler === undefined) return this.#refuse(404);
    const { method } = head.start;
    if (method === "OPTIONS") {
      await this.#reader.skip();
      await this.#write([optionsReply(handler.table)]);
      return true;
    }
    if (!isModification(method) || !(handler.table.methods ?? ["RESPMOD"]).includes(method)) return this.#refuse(405);
    if (head.body === undefined) return this.#refuse(400);
    let reply: IcapReply;
    try {
      reply = await handler.handle(this.#request(head, method, service, query));
    } catch (error) {
      if (error instanceof MalformedMessage) throw error;
      return this.#refuse(500);
    }
    await this.#write([replyHeads(handler.table, reply)]);
    if (reply.http?.body !== undefined) {
      for await (const pieces of replyBody(reply.http.body)) await this.#write(pieces);
    }
    // What the handler left: the next request begins behind it.
    await this.#reader.skip();
    return true;
  }

  #request(head: MessageHead<RequestLine>, method: IcapRequest["method"], service: string, query: string): IcapRequest {
    const { headers, httpRequest, httpResponse } = head;
    const preview = headers.get("preview");
    const reader = this.#reader;
    return {
      method,
      service,
      query,
      headers,
      httpRequest,
      httpResponse,
      allow204: headers.lists("allow", "204"),
      preview: preview !== undefined && /^\d{1,9}$/.test(preview) ? Number(preview) : undefined,
      body: {
        async *[Symbol.asyncIterator]() {
          for (let bytes = await reader.read(); bytes !== undefined; bytes = await reader.read()) yield bytes;
        },
      },
      signal: this.#gone.signal,
    };
  }

  async #refuse(status: number): Promise<false> {
    await this.#write([refusal(status)]);
    // A socket that is closed with bytes unread is reset, and the refusal lost on its way.
    await this.#reader.skip();
    return false;
  }

  async #write(pieces: readonly (string | Uint8Array)[]): Promise<void> {
    this.#gone.signal.throwIfAborted();
    this.#socket.cork();
    let ready = true;
    for (const piece of pieces) ready = typeof piece === "string" ? this.#socket.write(piece, "latin1") : this.#socket.write(piece);
    this.#socket.uncork();
    if (!ready) await once(this.#socket, "drain", { signal: this.#gone.signal });
  }
}

function isModification(method: string): method is IcapRequest["method"] {
  return method === "REQMOD" || method === "RESPMOD";
}
