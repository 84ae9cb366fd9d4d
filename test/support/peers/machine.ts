/** Where the real c-icap, e2guardian, clamd and Redis run. */
export interface Port {
  /** What a daemon listens on. */
  readonly listen: string;
  readonly inside: number;
  /** How a test reaches it. */
  readonly host: string;
  readonly outside: number;
}

export interface Daemon {
  /** To it and its children. Nothing happens when it is gone. */
  signal(name: NodeJS.Signals): Promise<void>;
  alive(): Promise<boolean>;
}

/** Paths are the machine's own. */
export interface Machine {
  makeDirectory(): Promise<string>;
  remove(path: string): Promise<void>;
  write(path: string, content: string | Buffer): Promise<void>;
  read(path: string): Promise<string>;
  /** @throws Error with the end of the output, when the exit status is not 0 */
  run(command: readonly string[]): Promise<string>;
  /** In the foreground of nothing: its output goes to `log`. It dies with the test process, however that ends. */
  start(command: readonly string[], log: string): Promise<Daemon>;
  /** That nothing listens on; no other test process gets the same while this one runs. */
  freePort(): Promise<Port>;
}
