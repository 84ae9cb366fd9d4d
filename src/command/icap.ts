/** `matrix-icap-gateway icap …`: looks at ICAP services from the command line. */
import { styleText } from "node:util";
import { UsageError } from "./command-line.ts";
import { printable } from "./printable.ts";

const USAGE = `Usage:
  matrix-icap-gateway icap options URL     shows what an ICAP service says of itself
  matrix-icap-gateway icap scan URL FILE…  has files scanned
  matrix-icap-gateway icap canary URL      shows what a service catches, and what to set if that is not enough

URL is icap://host[:port]/service or icaps://… for TLS. With -c FILE --service NAME in its place, the service and all its options are taken
from the gateway's configuration. Each command has a --help of its own.
`;

/** Milliseconds in which more signals are the same one: Ctrl-C comes from the terminal, from npm and from the launcher. */
const SAME_SIGNAL = 1000;

/** The exit status; the words are those after the command's name. @throws UsageError; ConfigError. */
type Command = (args: readonly string[], signal: AbortSignal) => Promise<number>;

const COMMANDS: ReadonlyMap<string, () => Promise<Command>> = new Map([
  ["options", async () => (await import("./icap-options.ts")).icapOptions],
  ["scan", async () => (await import("./icap-scan.ts")).icapScan],
  ["canary", async () => (await import("./icap-canary.ts")).icapCanary],
]);

/** The user has had enough. */
class Interrupted extends Error {
  override readonly name = "Interrupted";
  readonly signal: NodeJS.Signals;

  constructor(signal: NodeJS.Signals) {
    super(`ended by ${signal}`);
    this.signal = signal;
  }
}

/**
 * Runs one of the commands, and ends this process by the signal that ended it, if one did.
 * @returns the exit status
 * @throws UsageError; ConfigError for a configuration that can't be used.
 */
export async function icap(args: readonly string[]): Promise<number> {
  const [word, ...rest] = args;
  if (word === "--help" || word === "-h") {
    process.stdout.write(USAGE);
    return 0;
  }
  const load = COMMANDS.get(word ?? "");
  if (load === undefined)
    throw new UsageError(`icap: ${word === undefined ? "the command is missing" : `unknown command: ${printable(word)}`}`);
  const command = await load();
  using stop = new Stop();
  try {
    return await command(rest, stop.signal);
  } catch (error) {
    if (error !== stop.signal.reason) throw error;
    if (!(error instanceof Interrupted)) return 2;
    process.stderr.write(`${styleText("yellow", "interrupted", { stream: process.stderr })}\n`);
    stop[Symbol.dispose]();
    process.kill(process.pid, error.signal);
    return 2;
  }
}

/** Aborted by Ctrl-C or SIGTERM, and when nobody reads what is written (`| head`). A second Ctrl-C, in earnest, ends the process at once. */
class Stop implements Disposable {
  readonly #controller = new AbortController();
  readonly #onSignal = (signal: NodeJS.Signals): void => {
    if (this.signal.aborted) return;
    this.#controller.abort(new Interrupted(signal));
    setTimeout(() => this[Symbol.dispose](), SAME_SIGNAL).unref();
  };
  readonly #onUnread = (error: Error): void => this.#controller.abort(error);

  constructor() {
    process.on("SIGINT", this.#onSignal);
    process.on("SIGTERM", this.#onSignal);
    process.stdout.on("error", this.#onUnread);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  [Symbol.dispose](): void {
    process.off("SIGINT", this.#onSignal);
    process.off("SIGTERM", this.#onSignal);
  }
}
