/** Content-Encoding (RFC 9110, section 8.4) that a server applies although it was asked for `identity`. */
import type { Transform } from "node:stream";
import { constants, createBrotliDecompress, createGunzip, createInflate, createZstdDecompress } from "node:zlib";

/** RFC 9659: a decoder of the `zstd` content coding need not support windows past 8 MiB, so more is never allocated. */
const ZSTD_WINDOW_LOG_MAX = 23;

/** How to undo an answer's Content-Encoding: `none` to be undone; a decoder to be made; or undefined for what is not decoded. */
export type Decoding = "none" | (() => Transform);

/**
 * Reads a Content-Encoding field. One layer of gzip, deflate, br or zstd is decoded; more layers, other codings and repeated fields
 * are not. The decoders fail on input that ends early; they do not bound their output.
 * @returns undefined for what can't be decoded
 */
export function decodingFor(contentEncoding: string | string[] | undefined): Decoding | undefined {
  if (contentEncoding === undefined) return "none";
  if (typeof contentEncoding !== "string") return undefined;
  switch (contentEncoding.trim().toLowerCase()) {
    case "":
    case "identity":
      return "none";
    case "gzip":
    case "x-gzip":
      return () => createGunzip();
    case "deflate":
      return () => createInflate();
    case "br":
      return () => createBrotliDecompress();
    case "zstd":
      return () => createZstdDecompress({ params: { [constants.ZSTD_d_windowLogMax]: ZSTD_WINDOW_LOG_MAX } });
    default:
      return undefined;
  }
}
