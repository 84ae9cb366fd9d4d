import { pipeline, Readable } from "node:stream";
import type { Transform } from "node:stream";

export interface MediaBodyOptions {
  /** The answer's body as it comes from the connection. Destroying it ends the exchange. */
  readonly exchange: Readable;
  /** Undoes a Content-Encoding on the way. */
  readonly decoder?: Transform | undefined;
  /** Bytes that may come out at most. */
  readonly limit: number;
  /** Turns what went wrong (undefined: the body ended without saying so) into what readers see. */
  readonly failure: (error: unknown) => Error;
  /** What readers see when more than `limit` comes. */
  readonly tooLong: () => Error;
}

/**
 * A media's bytes on their way from the homeserver. Every failure comes out as the error that `failure` makes of it; nothing is read
 * ahead of the consumer but the stream's own buffer. Until somebody reads it, an error waits: it never ends the process.
 */
export class MediaBody extends Readable {
  readonly #source: Readable;

  constructor({ exchange, decoder, limit, failure, tooLong }: MediaBodyOptions) {
    super({ highWaterMark: 64 * 1024 });
    // The pipeline ends both when either ends, so the source alone needs watching and destroying.
    this.#source = decoder === undefined ? exchange : pipeline(exchange, decoder, () => {});
    this.on("error", () => {});

    let seen = 0;
    this.#source.pause();
    this.#source
      .on("data", (chunk: Buffer) => {
        seen += chunk.length;
        if (seen > limit) this.destroy(tooLong());
        else if (!this.push(chunk)) this.#source.pause();
      })
      .on("end", () => this.push(null))
      .on("error", (error) => this.destroy(failure(error)))
      .on("close", () => {
        if (!this.#source.readableEnded) this.destroy(failure(undefined));
      });
  }

  override _read(): void {
    this.#source.resume();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#source.destroy();
    callback(error);
  }
}
