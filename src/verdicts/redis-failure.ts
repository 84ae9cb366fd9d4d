/** What went wrong with Redis, in words that may stand in a log. */

const MAX_WORDS = 200;

/** Nobody's password is so short; replaced, a shorter one would make every text unreadable. */
const SHORTEST_SECRET = 4;

/**
 * Text alone, never the error itself: an error reply carries its command, and that may be AUTH. Bounded and escaped; a server that quotes a
 * command's arguments, or a password, is cut short.
 */
export function failureWords(error: unknown, secrets: readonly (string | undefined)[] = []): string {
  // What ioredis gives when no node of a Cluster answers, with what the last one said.
  const cause = error instanceof Error && "lastNodeError" in error && error.lastNodeError instanceof Error ? error.lastNodeError : error;
  if (!(cause instanceof Error)) return "unknown error";
  let text = "code" in cause && typeof cause.code === "string" ? cause.code : cause.message;
  for (const secret of secrets) {
    if (secret !== undefined && secret.length >= SHORTEST_SECRET) text = text.replaceAll(secret, "[redacted]");
  }
  const quotes = text.search(/,? with args beginning with/i);
  return JSON.stringify(text.slice(0, quotes === -1 ? MAX_WORDS : Math.min(quotes, MAX_WORDS))).slice(1, -1);
}
