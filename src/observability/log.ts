/** JSON lines for operators. What is secret is never handed to the log; redaction is the last line of defence, not the first. */
import { codeOf, GatewayError } from "../errors.ts";
import { type DestinationStream, type Logger, pino } from "pino";

export type { Logger } from "pino";

export interface LogOptions {
  readonly level: "fatal" | "error" | "warn" | "info" | "debug" | "trace";
  /** Where the lines go; standard output unless told. */
  readonly stream?: DestinationStream;
}

/** Names under which tokens, keys and the like would stand, whoever logged them by mistake; in lower case. */
const SECRET_NAMES = new Set([
  "authorization",
  "proxy-authorization",
  "cookie",
  "set-cookie",
  "access_token",
  "token",
  "password",
  "secret",
  "pickle_key",
  "key",
  "k",
  "iv",
  "additional_headers",
  "encrypted_body",
  "credentials",
]);

const REDACTED = "[redacted]";

/** Objects in objects that are shown; one that holds itself ends here too. */
const DEEPEST = 6;
/** Causes of causes that are shown. */
const CAUSE_DEPTH = 5;
/** Peers have a say in messages; a line stays a line. */
const LONGEST_TEXT = 1000;

/**
 * Lines wait for others, to be written together: until there are so many bytes (`minLength`), or for so many milliseconds (`periodicFlush`). No write of
 * several lines is longer than what a pipe of several processes takes in one piece (`maxWrite`: Linux's PIPE_BUF). A process that is killed takes with it
 * what waited; however else it ends, pino writes that.
 */
const GATHERED = { minLength: 3072, maxWrite: 4096, periodicFlush: 100 };

/** One JSON object a line: `level` by name, `time` in ISO 8601, `msg`, and errors under `err`. */
export function createLogger({ level, stream }: LogOptions): Logger {
  return pino(
    {
      level,
      base: null,
      timestamp: timeField(),
      formatters: { level: (label) => ({ level: label }), log: (fields) => redacted(fields) },
      // pino's own redaction, whose paths have a depth, is left what a formatter does not see: the fields of child loggers.
      redact: { paths: [...SECRET_NAMES].map((name) => `["${name}"]`), censor: REDACTED },
      serializers: { err: (error: unknown) => describeError(error) },
    },
    stream ?? pino.destination({ dest: 1, sync: false, ...GATHERED }),
  );
}

/** Writes the time, in ISO 8601, as a part of a line. Lines of one second differ in the milliseconds alone, so the rest is kept from the one before. */
function timeField(): () => string {
  let second = NaN;
  let begin = "";
  return () => {
    const now = Date.now();
    const current = Math.floor(now / 1000);
    if (current !== second) {
      second = current;
      begin = `,"time":"${new Date(current * 1000).toISOString().slice(0, -"000Z".length)}`;
    }
    return `${begin}${String(now % 1000).padStart(3, "0")}Z"`;
  };
}

/** The fields without what stands under a secret's name, at any depth: a copy of them, but where nothing can stand there. */
function redacted(fields: object, depth = 0): Record<string, unknown> {
  const given = fields as Record<string, unknown>;
  if (isPlain(given)) return given;
  return Object.fromEntries(
    Object.entries(given).map(([name, value]) => [name, isSecret(name) ? REDACTED : redactedValue(value, depth + 1)]),
  );
}

/** Whether no object is among the fields, and no name of a secret. So it is with most lines. */
function isPlain(fields: Readonly<Record<string, unknown>>): boolean {
  for (const name of Object.keys(fields)) if (typeof fields[name] === "object" || isSecret(name)) return false;
  return true;
}

function isSecret(name: string): boolean {
  return SECRET_NAMES.has(name.toLowerCase());
}

function redactedValue(value: unknown, depth: number): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (depth > DEEPEST) return "[too deep]";
  if (Array.isArray(value)) return value.map((item: unknown) => redactedValue(item, depth + 1));
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null ? redacted(value, depth) : value;
}

/** The media that a request was about. The names of encrypted media are not told: with them the log would say who read what in a private room. */
export type LoggedMedia =
  | { readonly encrypted: true }
  | { readonly encrypted: false; readonly serverName: string; readonly mediaId: string };

/** The facts of one request. Times are milliseconds, sizes bytes. */
export interface RequestFacts {
  readonly method: string;
  /** The route's pattern or name, never the path. */
  readonly route: string;
  readonly status: number;
  /** `ok`, the code of the error, or `aborted` when the client went away. */
  readonly outcome: string;
  readonly duration: number;
  /** Bytes of the body that was sent. */
  readonly sent: number;
  readonly media?: LoggedMedia | undefined;
  /** Bytes as they came. */
  readonly size?: number | undefined;
  /** Where the verdict came from. */
  readonly via?: string | undefined;
  readonly verdict?: string | undefined;
  readonly scanner?: string | undefined;
  readonly threat?: string | undefined;
  readonly mime?: string | undefined;
  readonly downloadMs?: number | undefined;
  readonly scanMs?: number | undefined;
  /** What went wrong; never what the client was told. */
  readonly error?: unknown;
}

/** One line a request. Failures of the gateway and its peers are warnings, and so is a virus; a client's mistakes are not. */
export function logRequest(log: Logger, facts: RequestFacts): void {
  const { method, route, status, outcome, duration, sent, media, size, via, verdict, scanner, threat, mime, downloadMs, scanMs, error } =
    facts;
  const named = media?.encrypted === false ? media : undefined;
  const level = status >= 500 || verdict === "infected" ? "warn" : "info";
  // pino leaves out what is undefined.
  const fields = {
    size,
    via,
    verdict,
    scanner,
    mime,
    method,
    route,
    status,
    outcome,
    sent,
    encrypted: media?.encrypted,
    serverName: named?.serverName,
    mediaId: named?.mediaId,
    threat: threat?.slice(0, LONGEST_TEXT),
    durationMs: Math.round(duration),
    downloadMs: rounded(downloadMs),
    scanMs: rounded(scanMs),
    err: error,
  };
  log[level](fields, "request");
}

function rounded(milliseconds: number | undefined): number | undefined {
  return milliseconds === undefined ? undefined : Math.round(milliseconds);
}

/**
 * Only what every error has: libraries hang requests, with their headers, on theirs. A stack is shown where nobody foresaw the error: of
 * the failures that `errors.ts` knows, code and message tell all.
 */
function describeError(error: unknown, depth = 0, surprising = isSurprising(error)): Record<string, unknown> {
  if (!(error instanceof Error)) return { type: typeof error };
  const code = codeOf(error);
  const showsStack = surprising && !(error instanceof GatewayError) && error.stack !== undefined;
  return {
    type: error.name,
    ...(code === undefined ? {} : { code }),
    message: error.message.slice(0, LONGEST_TEXT),
    ...(showsStack ? { stack: frames(error.stack ?? "") } : {}),
    ...(error.cause === undefined || depth >= CAUSE_DEPTH
      ? {}
      : { cause: describeError(error.cause, depth + 1, surprising && !showsStack) }),
  };
}

function isSurprising(error: unknown): boolean {
  return !(error instanceof GatewayError) || error.code === "internal";
}

/** The stack without the message, which stands beside it. */
function frames(stack: string): string {
  return stack
    .split("\n")
    .filter((line) => /^\s+at /.test(line))
    .slice(0, 20)
    .map((line) => line.trim())
    .join("\n");
}
