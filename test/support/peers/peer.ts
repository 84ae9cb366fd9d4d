import { setTimeout as sleep } from "node:timers/promises";
import type { Daemon, Machine, Port } from "./machine.ts";

const READY_WITHIN = 30_000;

/** A real server in the foreground of its machine, with a folder and a port of its own. */
export abstract class Peer implements AsyncDisposable {
  protected readonly machine: Machine;
  protected readonly directory: string;
  protected readonly at: Port;
  #daemon: Daemon | undefined;

  constructor(machine: Machine, directory: string, at: Port) {
    this.machine = machine;
    this.directory = directory;
    this.at = at;
  }

  protected abstract readonly name: string;
  protected abstract command(): readonly string[];
  /** @throws while it is not ready */
  protected abstract ready(): Promise<void>;
  /** In `directory`, the file that says what goes wrong at its start. */
  protected readonly log: string = "output.log";

  get host(): string {
    return this.at.host;
  }

  get port(): number {
    return this.at.outside;
  }

  /** Starts it, after ending it at once if it runs. @throws Error with the end of its log */
  async restart(): Promise<void> {
    await this.kill();
    this.#daemon = await this.machine.start(this.command(), `${this.directory}/output.log`);
    await this.until(() => this.ready());
  }

  /** SIGKILL and SIGTERM: resolves when it and its children are gone. SIGSTOP and SIGCONT stop it and let it go on. */
  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    await this.#daemon?.signal(signal);
    if (signal === "SIGKILL" || signal === "SIGTERM") await this.#gone();
  }

  /** Ends it at once (some take seconds to follow SIGTERM), and removes its folder with all that it leaves behind. */
  async stop(): Promise<void> {
    await this.kill();
    await this.machine.remove(this.directory);
  }

  protected async alive(): Promise<boolean> {
    return (await this.#daemon?.alive()) ?? false;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  /** Tries until `step` no longer throws. @throws Error with the end of the log, when the daemon ends or 30 s are over */
  protected async until(step: () => Promise<void>): Promise<void> {
    const deadline = Date.now() + READY_WITHIN;
    for (;;) {
      try {
        return await step();
      } catch (cause) {
        const runs = await this.alive();
        if (!runs || Date.now() > deadline) {
          await this.kill();
          throw new Error(`${this.name} ${runs ? "is not ready" : "has ended"}; the end of its log:\n${await this.#logTail()}`, {
            cause,
          });
        }
        await sleep(10);
      }
    }
  }

  async #logTail(): Promise<string> {
    const log = await this.machine.read(`${this.directory}/${this.log}`).catch(() => "");
    return log.slice(-2000);
  }

  async #gone(): Promise<void> {
    while (await this.alive()) await sleep(5);
  }
}
