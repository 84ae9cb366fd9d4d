/** Two ends of a pipe between processes: what goes in at one comes out at the other, later, as a copy. */
import type { Port } from "../../src/cluster/channel.ts";

export interface PipeEnd extends Port {
  /** While it is true, nothing leaves this end, nor is it confirmed. */
  stuck: boolean;
  /** What was handed over here. */
  readonly sent: unknown[];
}

export function pipe(): readonly [PipeEnd, PipeEnd] {
  const ends = [new End(), new End()] as const;
  ends[0].other = ends[1];
  ends[1].other = ends[0];
  return ends;
}

class End implements PipeEnd {
  readonly sent: unknown[] = [];
  other: End | undefined;
  #stuck = false;
  #listener: (message: unknown) => void = () => undefined;
  readonly #waiting: (() => void)[] = [];

  get stuck(): boolean {
    return this.#stuck;
  }

  set stuck(stuck: boolean) {
    this.#stuck = stuck;
    if (!stuck) for (const go of this.#waiting.splice(0)) go();
  }

  send(message: unknown, sent: (error: Error | null) => void): void {
    const copy = structuredClone(message);
    this.sent.push(copy);
    const go = (): void => {
      this.other?.receive(copy);
      sent(null);
    };
    if (this.#stuck) this.#waiting.push(go);
    else queueMicrotask(go);
  }

  listen(listener: (message: unknown) => void): void {
    this.#listener = listener;
  }

  receive(message: unknown): void {
    this.#listener(message);
  }
}
