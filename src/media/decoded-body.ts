import { pipeline } from "node:stream";
import type { Transform } from "node:stream";
import { GatewayError } from "../errors.ts";
import { failure } from "./failure.ts";
import type { MediaBody } from "./source.ts";

/** A body whose Content-Encoding is undone on the way; it fails with `too_large` when more than `limit` bytes come out, else as the encoded one does. */
export class DecodedBody implements MediaBody {
  readonly #encoded: MediaBody;
  readonly #decoder: Transform;
  readonly #limit: number;
  readonly #signal: AbortSignal;

  constructor(encoded: MediaBody, decoder: Transform, limit: number, signal: AbortSignal) {
    this.#encoded = encoded;
    this.#limit = limit;
    this.#signal = signal;
    // An error waits in the decoder until somebody reads from it.
    this.#decoder = pipeline(encoded, decoder, () => {}).on("error", () => {});
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer, undefined> {
    let seen = 0;
    try {
      for await (const chunk of this.#decoder as AsyncIterable<Buffer>) {
        seen += chunk.length;
        if (seen > this.#limit) throw new GatewayError("too_large");
        yield chunk;
      }
    } catch (error) {
      throw failure(error, this.#signal);
    } finally {
      this.destroy();
    }
  }

  destroy(error?: Error): void {
    this.#encoded.destroy(error);
    this.#decoder.destroy(error);
  }
}
