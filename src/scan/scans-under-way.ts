/** Scans that end with the standing under which they were asked for. */
import { Fanout, LinkedController } from "./deadline.ts";
import type { Standing } from "./proof.ts";

/** Those of one replica. */
export class ScansUnderWay {
  #last: { readonly standing: Standing; readonly ends: Fanout } | undefined;

  /** One more. Its signal aborts with the given one, and once the standing is lost; it must be disposed of. */
  begin(standing: Standing, signal: AbortSignal): LinkedController {
    if (this.#last?.standing !== standing) this.#last = { standing, ends: new Fanout(standing.lost) };
    return new LinkedController(this.#last.ends, signal);
  }
}
