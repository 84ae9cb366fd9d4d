/** A form with a file and, if it is encrypted, how: `multipart/form-data` (RFC 7578), read as it comes. */
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { type BusboyInstance, Busboy } from "@fastify/busboy";
import { GatewayError } from "../errors.ts";
import type { SizeBounds } from "../scan/file-check.ts";
import { gather } from "./json-body.ts";

/** Of the part `file`; waited for. */
type Write = (bytes: Buffer) => Promise<void>;

/** Bytes that a form may have beside the file: what says how it is encrypted, heads, boundaries. */
const OVERHEAD = 128 * 1024;

/** Bytes that have been read, and stand in the parser's buffers or its streams'. */
const IN_FLIGHT = 512 * 1024;

const LIMITS = { parts: 2, files: 2, headerPairs: 16, headerSize: 8 * 1024 };

/** Codings of a part that leave its bytes as they are (RFC 2045). */
const IDENTITY: ReadonlySet<string> = new Set(["7bit", "8bit", "binary"]);

/**
 * Reads the form to its end. Its parts are `file`, which has to be there, and `body`, in any order; each comes once, as a file or as a field.
 * @returns the part `body`, if there is one.
 * @throws GatewayError `malformed_request` for any other form, `request_too_large` for a `body` above 64 KiB; whatever `write` and the source throw;
 *   the signal's reason, whatever the parser waits for.
 */
export async function readScanForm(
  contentType: string | undefined,
  source: (signal: AbortSignal) => AsyncIterable<Buffer>,
  write: Write,
  signal: AbortSignal,
): Promise<Buffer | undefined> {
  const parser = parserOf(contentType);
  const parts = new Parts(write);
  parser.on("file", (name: string | undefined, stream: Readable, _file: unknown, coding: string) => parts.take(name, stream, coding));
  parser.on("partsLimit", () => parts.refuse("The form has other parts than file and body"));
  try {
    await pipeline(parts.measured(source(parts.failure)), parser, { signal: AbortSignal.any([signal, parts.failure]) });
  } catch (error) {
    // Closing makes errors of its own.
    const reason: unknown = parts.failure.aborted ? parts.failure.reason : error;
    await parts.close();
    signal.throwIfAborted();
    throw reason instanceof GatewayError ? reason : malformed("The form can't be read", reason);
  }
  return parts.end();
}

/** Of the file in a form of this many bytes. */
export function boundsOfFile(form: number | undefined): SizeBounds | undefined {
  return form === undefined ? undefined : { atLeast: Math.max(0, form - OVERHEAD), atMost: form };
}

function parserOf(contentType: string | undefined): BusboyInstance {
  if (!/^multipart\/form-data\s*;/i.test(contentType ?? "")) throw malformed("The request body is not multipart/form-data");
  try {
    // Whether it has a file name or not, each part is a stream: none is held in memory by the parser. It says that it has ended at the end of some
    // malformed forms only by being destroyed.
    const options = { autoDestroy: true, headers: { "content-type": contentType ?? "" }, limits: LIMITS, isPartAFile: () => true };
    return new Busboy(options);
  } catch (error) {
    throw malformed("The form has no boundary", error);
  }
}

class Parts {
  readonly #write: Write;
  readonly #failed = new AbortController();
  readonly #taken: Promise<void>[] = [];
  readonly #streams: Readable[] = [];
  readonly #names = new Set<string>();
  #body: Buffer | undefined;
  #written = 0;

  constructor(write: Write) {
    this.#write = write;
  }

  /** Aborts with what is wrong, once something is. */
  get failure(): AbortSignal {
    return this.#failed.signal;
  }

  /** The same bytes, as long as they are those of the file, or not too many more. */
  async *measured(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    let came = 0;
    for await (const chunk of source) {
      came += chunk.length;
      if (came - this.#written > OVERHEAD + IN_FLIGHT) throw malformed("The form has too much beside the file");
      yield chunk;
    }
  }

  take(name: string | undefined, stream: Readable, coding: string): void {
    this.#streams.push(stream);
    // It is destroyed with an error when the form ends early, which is told by the parser too.
    stream.on("error", () => undefined);
    const taken = this.#read(name, stream, coding).catch((error: unknown) => {
      this.#failed.abort(error instanceof GatewayError ? error : malformed("The form was cut short", error));
    });
    this.#taken.push(taken);
  }

  refuse(info: string): void {
    this.#failed.abort(malformed(info));
  }

  /** @throws GatewayError when the form was not what it has to be. */
  async end(): Promise<Buffer | undefined> {
    await Promise.all(this.#taken);
    if (this.#failed.signal.aborted) throw this.#failed.signal.reason;
    if (!this.#names.has("file")) throw malformed("The form has no part named file");
    return this.#body;
  }

  /** Nothing is written any more when this resolves. */
  async close(): Promise<void> {
    for (const stream of this.#streams) stream.destroy();
    await Promise.all(this.#taken);
  }

  async #read(name: string | undefined, stream: Readable, coding: string): Promise<void> {
    if ((name !== "file" && name !== "body") || this.#names.has(name)) throw malformed("The form has other parts than file and body");
    if (!IDENTITY.has(coding)) throw malformed("The form has a part with a Content-Transfer-Encoding");
    this.#names.add(name);
    if (name === "body") {
      this.#body = await gather(stream as AsyncIterable<Buffer>);
      return;
    }
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      this.#written += chunk.length;
      await this.#write(chunk);
    }
  }
}

function malformed(info: string, cause?: unknown): GatewayError {
  return new GatewayError("malformed_request", { info, cause });
}
