import type { MediaBody } from "./source.ts";

/**
 * Reads a small body (an error, a redirect, a well-known file) to its end.
 * @returns undefined when it is longer than `limit` bytes, or can't be had within `deadline` (milliseconds); the connection is then closed
 * @throws the signal's reason
 */
export async function readBounded(body: MediaBody, limit: number, signal: AbortSignal, deadline = 5000): Promise<Buffer | undefined> {
  const timer = setTimeout(() => body.destroy(), deadline);
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of body) {
      size += chunk.length;
      // Leaving the loop destroys the body.
      if (size > limit) return undefined;
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  } catch {
    signal.throwIfAborted();
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}
