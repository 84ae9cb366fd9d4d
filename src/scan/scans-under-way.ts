/** Scans that end with the standing under which they were asked for. */
import { Linked } from "./deadline.ts";
import type { Standing } from "./proof.ts";

/** Those of one replica. All of them hang on one listener at each standing, since listeners are looked through whenever one comes or goes. */
export class ScansUnderWay {
  #last: { readonly standing: Standing; readonly scans: Set<Linked> } | undefined;

  /** One more. Its signal aborts with the given one, and once the standing is lost; it must be disposed of. */
  begin(standing: Standing, signal: AbortSignal): Linked {
    return new Scan(this.#under(standing), signal);
  }

  #under(standing: Standing): Set<Linked> {
    if (this.#last?.standing === standing) return this.#last.scans;
    const scans = new Set<Linked>();
    this.#last = { standing, scans };
    const end = (): void => {
      for (const scan of scans) scan.abort(standing.lost.reason as Error);
    };
    standing.lost.addEventListener("abort", end, { once: true });
    return scans;
  }
}

class Scan extends Linked {
  readonly #among: Set<Linked>;

  constructor(among: Set<Linked>, signal: AbortSignal) {
    super(signal);
    this.#among = among;
    among.add(this);
  }

  override [Symbol.dispose](): void {
    this.#among.delete(this);
    super[Symbol.dispose]();
  }
}
