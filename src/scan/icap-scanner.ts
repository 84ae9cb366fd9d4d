/** An ICAP service as a scanner: replicas of it, each believed only under an ISTag that its canaries have passed. */
import { IcapError, IcapService, type IcapScanResult, type IcapServiceOptions } from "../../icap/index.ts";
import { GatewayError } from "../errors.ts";
import { type CanaryAnswer, Proof, type ProofLog } from "./proof.ts";
import type { CanaryKind } from "./canary-samples.ts";
import type { KeptOutcome, Scanner, ScannerHealth, ScanSubject, ScanVerdict, Stamp } from "./scanner.ts";

export interface IcapScannerOptions {
  readonly name: string;
  /** Replicas of one service, tried in this order. */
  readonly services: readonly IcapServiceOptions[];
  readonly canaries: readonly CanaryKind[];
  /** Milliseconds between proofs. */
  readonly canaryInterval: number;
  /** Milliseconds that a proof may take before the service counts as down. */
  readonly canaryTimeout: number;
  readonly log: ProofLog;
  readonly clock?: () => number;
}

interface Replica {
  readonly service: IcapService;
  readonly proof: Proof;
}

/** What is said of the bytes to every service: nothing that an uploader chose. */
const UNNAMED = { contentType: "application/octet-stream", fileName: "media" } as const;

const ANSWERED_BADLY: ReadonlySet<string> = new Set(["closed_early", "protocol", "limit"]);

/** A verdict may be followed by the news that its ISTag is new; then the canaries go first, and the media again. */
const MAX_TAG_CHANGES = 2;

export class IcapScanner implements Scanner {
  readonly name: string;
  readonly policy: string;
  readonly needsType = false;
  readonly #replicas: readonly Replica[];
  readonly #clock: () => number;

  constructor(options: IcapScannerOptions) {
    this.name = options.name;
    this.#clock = options.clock ?? steadyClock;
    // The host is not part of it (replicas are the same service), its path and arguments are: they choose what is looked for.
    const services = options.services.map(({ url, preview }) => `${pathOf(url)} preview=${preview ?? "never"}`);
    this.policy = JSON.stringify(["icap RESPMOD", [...new Set(services)].toSorted(), options.canaries.toSorted()]);
    this.#replicas = options.services.map((serviceOptions) => {
      const service = new IcapService(serviceOptions);
      const proof = new Proof({
        name: options.services.length === 1 ? options.name : `${options.name} (${service.url})`,
        required: options.canaries,
        interval: options.canaryInterval,
        timeout: options.canaryTimeout,
        send: (bytes, signal) => sendCanary(service, bytes, signal),
        log: options.log,
        clock: this.#clock,
      });
      return { service, proof };
    });
  }

  get capacity(): number {
    return Math.min(...this.#replicas.map(({ service }) => service.capacity));
  }

  health(): ScannerHealth {
    const problems = this.#replicas.flatMap(({ proof }) => [...(proof.problem === undefined ? [] : [proof.problem]), ...proof.warnings]);
    return { ready: this.#replicas.some(({ proof }) => proof.standing !== undefined), problems };
  }

  async start(): Promise<void> {
    await Promise.all(this.#replicas.map(({ proof }) => proof.prove()));
  }

  /** Replicas share tags and say the same; but what any of them said while it may not have worked is asked again. */
  upholds(stamp: Stamp, outcome: KeptOutcome): boolean {
    const upheld = this.#replicas.some(({ proof }) => proof.upholds(stamp, outcome));
    return upheld && !this.#replicas.some(({ proof }) => proof.doubts(stamp, outcome));
  }

  async scan(subject: ScanSubject, signal: AbortSignal): Promise<ScanVerdict> {
    const failures: string[] = [];
    const left = new Set(this.#replicas);
    while (left.size > 0) {
      const replica = leastBusy(left) ?? (await firstRenewed(left, signal));
      if (replica === undefined) break;
      left.delete(replica);
      try {
        const verdict = await this.#ask(replica, subject, signal);
        if (typeof verdict !== "string") return verdict;
        failures.push(verdict);
      } catch (error) {
        if (!(error instanceof IcapError)) throw error;
        if (error.code === "connect_failed") replica.proof.unreachable(error.message);
        else replica.proof.suspect();
        failures.push(error.message);
      }
    }
    for (const { proof } of left) failures.push(proof.problem ?? this.name);
    throw new GatewayError("scanner_unavailable", { detail: failures.join("; ") });
  }

  /** One replica's verdict, or why there is none. */
  async #ask({ service, proof }: Replica, subject: ScanSubject, signal: AbortSignal): Promise<ScanVerdict | string> {
    for (let changes = 0; changes < MAX_TAG_CHANGES; changes += 1) {
      const { standing } = proof;
      if (standing === undefined) break;
      const { verdict, isTag } = await service.scan({ ...UNNAMED, body: () => subject.open(), size: subject.size, signal });
      if (verdict.outcome === "error") {
        proof.suspect();
        return `${this.name}: ${verdict.why}`;
      }
      const tag = isTag ?? "";
      // The very proof that held when the question was asked must hold now.
      if (tag === standing.tag && standing === proof.standing) return withStamp(verdict, { tag, at: this.#clock() });
      proof.tagChanged(tag);
      await proof.renew(signal);
    }
    return proof.problem ?? `${this.name}: its ISTag changes with every answer, so no verdict can be relied on`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { proof } of this.#replicas) proof[Symbol.dispose]();
    await Promise.all(this.#replicas.map(({ service }) => service[Symbol.asyncDispose]()));
  }
}

/** Time that never steps back while the process runs, in milliseconds since the epoch: verdicts are ordered by it. */
function steadyClock(): number {
  return performance.timeOrigin + performance.now();
}

function leastBusy(replicas: Iterable<Replica>): Replica | undefined {
  const load = ({ service }: Replica): number => service.stats().busy + service.stats().waiting;
  const [first] = [...replicas].filter(({ proof }) => proof.standing !== undefined).toSorted((a, b) => load(a) - load(b));
  return first;
}

/** The first of these replicas to prove itself now, if any does; none waits for another. @throws the signal's reason. */
async function firstRenewed(replicas: Iterable<Replica>, signal: AbortSignal): Promise<Replica | undefined> {
  const proofs = [...replicas].map(async (replica) => {
    await replica.proof.renew(signal);
    if (replica.proof.standing === undefined) throw new Error(replica.proof.problem);
    return replica;
  });
  try {
    return await Promise.any(proofs);
  } catch {
    signal.throwIfAborted();
    return undefined;
  }
}

function withStamp(verdict: Exclude<IcapScanResult["verdict"], { outcome: "error" }>, stamp: Stamp): ScanVerdict {
  switch (verdict.outcome) {
    case "clean":
      return { outcome: "clean", stamp };
    case "infected":
      return { outcome: "infected", threat: verdict.threat, stamp };
    case "modified":
    case "unscannable":
      return { outcome: verdict.outcome, why: verdict.why, stamp };
  }
}

async function sendCanary(service: IcapService, bytes: Buffer, signal: AbortSignal): Promise<CanaryAnswer> {
  // Asked anew, so that a service which was replaced in the meantime is known by its new ISTag and limits.
  await service.options(signal, { fresh: true });
  try {
    const { verdict, isTag } = await service.scan({ ...UNNAMED, body: () => once(bytes), size: bytes.length, priority: true, signal });
    return verdict.outcome === "error" ? { outcome: "failed", why: verdict.why } : { outcome: verdict.outcome, tag: isTag ?? "" };
  } catch (error) {
    // It was there, and broke off or talked nonsense at this very file.
    if (error instanceof IcapError && ANSWERED_BADLY.has(error.code)) return { outcome: "failed", why: error.message };
    throw error;
  }
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}

function pathOf(url: string): string {
  const { pathname, search } = new URL(url);
  return pathname + search;
}
